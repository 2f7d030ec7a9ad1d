// StoreBackend: a backend of the configuration as the object store uses it: its calls are timed
// and told to its health, and go through its lane. Makes the zdb::Backend, again when that failed.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "base/mutex.h"
#include "zdb/backend.h"
#include "zstor/backend_health.h"
#include "zstor/backend_lane.h"
#include "zstor/config.h"
#include "zstor/object_store.h"

namespace qsfs::zstor {

// How many calls of one backend run at a time; it has as many connections.
inline constexpr std::size_t kCallsPerBackendMax = 4;

// A call that was given less time than this and has none left tells nothing of the backend: it was
// the last try of somebody who was late.
inline constexpr Duration kTellingTimeout = std::chrono::seconds(1);

// Thread-safe. Borrows what `dependencies` names, not the struct itself: it may outlive the core
// that made it.
class StoreBackend {
 public:
  StoreBackend(const BackendConfig& config, bool is_meta, std::size_t group,
               const StoreDependencies& dependencies);
  StoreBackend(const StoreBackend&) = delete;
  StoreBackend& operator=(const StoreBackend&) = delete;

  // As those of zdb::Backend; errors name the backend.
  Result<Buffer> set(Bytes key, Bytes value, Duration timeout);
  Result<std::optional<Buffer>> get(Bytes key, Duration timeout);
  Result<bool> remove(Bytes key, Duration timeout);
  Result<zdb::CheckVerdict> check(Bytes key, Duration timeout);
  Result<zdb::ScanPage> scan(Bytes cursor, Duration timeout);
  // NSINFO and INFO; the outcome is in health().
  void probe(Duration timeout);

  // Makes the backend if there is none yet (an embedded one whose directory was not to be had).
  // Returned pointers live as long as this.
  Result<zdb::Backend*> backend() QSFS_EXCLUDES(mu_);

  [[nodiscard]] const BackendConfig& config() const { return config_; }
  [[nodiscard]] bool is_meta() const { return is_meta_; }
  [[nodiscard]] std::size_t group() const { return group_.load(std::memory_order_relaxed); }
  // Another configuration has it elsewhere.
  void set_group(std::size_t group) { group_.store(group, std::memory_order_relaxed); }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] BackendHealth& health() { return health_; }
  [[nodiscard]] const BackendHealth& health() const { return health_; }
  [[nodiscard]] BackendLane& lane() { return lane_; }
  [[nodiscard]] BackendStatus status() const QSFS_EXCLUDES(mu_);

 private:
  void tell_if_returned();
  template <class T, class Call>
  Result<T> timed(BackendHealth::Call kind, Duration timeout, const Call& call);

  const BackendConfig config_;
  const std::string name_;
  const bool is_meta_;
  std::atomic<std::size_t> group_;
  const StoreDependencies dependencies_;

  BackendHealth health_;

  mutable Mutex mu_;
  std::unique_ptr<zdb::Backend> backend_ QSFS_GUARDED_BY(mu_);
  bool making_ QSFS_GUARDED_BY(mu_) = false;

  // Last: its destructor waits for tasks that use the rest.
  BackendLane lane_;
};

}  // namespace qsfs::zstor
