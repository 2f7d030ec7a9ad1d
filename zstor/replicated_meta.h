// ReplicatedMeta: the MetaStore over the meta backends of a store.
//
// Invariants:
// - With N backends, a write is acknowledged by a majority, and a read hears N - majority + 1 of
//   them, so that it meets one that has the last acknowledged write. A damaged copy is not heard.
// - In this process the writes to one name go one after another, those that put() no longer waits
//   for included: a SET that hangs can not come later and undo a newer one.
// - Reading repairs copies only after asking again, under the same rule.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "zstor/meta_store.h"
#include "zstor/store_core.h"

namespace qsfs::zstor {

inline constexpr Duration kMetaTimeout = std::chrono::seconds(5);
// How long an operation waits for the other backends once enough have answered.
inline constexpr Duration kMetaGrace = std::chrono::milliseconds(200);
// Names of one list(); kTooBig beyond.
inline constexpr std::size_t kMetaListMax = 4'000'000;
// Pages of one scan: ends that of a backend which never stops.
inline constexpr std::size_t kMetaScanPagesMax = 1'000'000;

// Thread-safe. Borrows the core.
class ReplicatedMeta final : public MetaStore {
 public:
  explicit ReplicatedMeta(StoreCore& core);

  Status put(std::string_view name, std::uint64_t generation, Bytes value) override;
  Result<std::optional<MetaValue>> get(std::string_view name) override;
  Status remove(std::string_view name) override;
  Result<std::vector<std::string>> list(std::string_view prefix) override;

 private:
  // What one backend said.
  struct Answer {
    bool is_silent = true;  // No answer (yet), or an error.
    std::string error;
    bool has_copy = false;
    Buffer copy;  // As stored: sealed.
    bool is_damaged = false;
    std::optional<MetaValue> value;
  };
  using Call = std::function<Status(StoreBackend&, Answer&)>;
  struct Round;
  struct NameLock;

  [[nodiscard]] std::size_t majority() const { return core_.meta.size() / 2 + 1; }
  [[nodiscard]] std::size_t read_quorum() const { return core_.meta.size() - majority() + 1; }
  [[nodiscard]] std::string key_of(std::string_view name) const;
  [[nodiscard]] Status check_name(std::string_view name) const;

  // Runs `call` on the lanes of the backends that are well, and of the others only when those are
  // not enough. Returns when all have answered, or kMetaGrace after `enough` have succeeded.
  std::shared_ptr<Round> ask(BackendLane::Priority priority, std::size_t enough,
                             const std::shared_ptr<NameLock>& lock, Call call);
  std::vector<Answer> read_copies(const std::string& key);
  // The newest valid value among them; with its quorum rules.
  Result<std::optional<MetaValue>> judge(std::string_view name,
                                         const std::vector<Answer>& answers) const;
  void repair_copies(const std::string& key, const MetaValue& newest,
                     const std::vector<Answer>& answers);
  Status write(std::string_view name, const std::shared_ptr<NameLock>& lock, Call call,
               std::string_view verb);
  Result<std::vector<std::string>> list_one(StoreBackend& backend, const std::string& key_prefix);

  // Waits until no write to `key` is under way.
  std::shared_ptr<NameLock> lock_name(const std::string& key) QSFS_EXCLUDES(mu_);
  // Null when one is.
  std::shared_ptr<NameLock> try_lock_name(const std::string& key) QSFS_EXCLUDES(mu_);
  void unlock_name(const std::string& key) QSFS_EXCLUDES(mu_);

  StoreCore& core_;
  Mutex mu_;
  CondVar unlocked_;
  std::set<std::string, std::less<>> busy_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::zstor
