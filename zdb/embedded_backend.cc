#include "zdb/embedded_backend.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>

#include "base/check.h"
#include "base/mutex.h"
#include "base/posix_disk.h"
#include "zdb/engine.h"

namespace qsfs::zdb {
namespace {

// The engines that are open in this process, by canonical path. An engine is opened and closed
// without the lock; others who want the same path wait for that.
class EngineRegistry {
 public:
  Result<std::shared_ptr<Engine>> open(const std::string& directory) QSFS_EXCLUDES(mu_) {
    std::error_code error;
    const std::string path = std::filesystem::weakly_canonical(directory, error).string();
    if (error) return fail_errno(error.value(), "directory " + directory);
    {
      MutexLock lock(mu_);
      while (true) {
        const auto slot = slots_.find(path);
        if (slot == slots_.end()) break;
        if (auto engine = slot->second.lock()) return engine;
        changed_.wait(mu_);  // It is being opened or closed.
      }
      slots_.emplace(path, std::weak_ptr<Engine>());
    }
    auto opened = Engine::open({.directory = path, .sync = SyncPolicy::kAlways}, posix_disk(),
                               system_clock(), system_random());
    if (!opened) {
      release(path);
      return std::unexpected(std::move(opened).error());
    }
    std::shared_ptr<Engine> engine(opened->release(), [this, path](Engine* closing) {
      delete closing;
      release(path);
    });
    MutexLock lock(mu_);
    slots_[path] = engine;
    changed_.notify_all();
    return engine;
  }

 private:
  void release(const std::string& path) QSFS_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    slots_.erase(path);
    changed_.notify_all();
  }

  Mutex mu_;
  CondVar changed_;
  // Weak: the backends own their engine together. An entry that cannot be locked is in transition.
  std::map<std::string, std::weak_ptr<Engine>> slots_ QSFS_GUARDED_BY(mu_);
};

EngineRegistry& engine_registry() {
  // Never destroyed: backends in static objects may close their engine after it would be.
  static auto* registry = new EngineRegistry;
  return *registry;
}

class EmbeddedBackend final : public Backend {
 public:
  EmbeddedBackend(std::shared_ptr<Engine> engine, std::shared_ptr<EngineNamespace> name_space,
                  Clock& clock)
      : engine_(std::move(engine)),
        namespace_(std::move(name_space)),
        clock_(clock),
        opened_at_(clock.now()) {}

  Result<Buffer> set(Bytes key, Bytes value, Duration /*timeout*/) override {
    return counted([&]() -> Result<Buffer> {
      QSFS_TRY(allow(/*write=*/true));
      QSFS_ASSIGN(auto stored, namespace_->set(key, value, unix_time_s()));
      bytes_sent_ += key.size() + value.size();
      return std::move(stored.key);
    });
  }

  Result<std::optional<Buffer>> get(Bytes key, Duration /*timeout*/) override {
    return counted([&]() -> Result<std::optional<Buffer>> {
      QSFS_TRY(allow(/*write=*/false));
      auto value = namespace_->get(key);
      if (value && *value) bytes_received_ += (*value)->size();
      return value;
    });
  }

  Result<bool> remove(Bytes key, Duration /*timeout*/) override {
    return counted([&]() -> Result<bool> {
      QSFS_TRY(allow(/*write=*/true));
      return namespace_->remove(key);
    });
  }

  Result<bool> exists(Bytes key, Duration /*timeout*/) override {
    return counted([&]() -> Result<bool> {
      QSFS_TRY(allow(/*write=*/false));
      return namespace_->exists(key);
    });
  }

  Result<std::optional<std::uint64_t>> length(Bytes key, Duration /*timeout*/) override {
    return counted([&]() -> Result<std::optional<std::uint64_t>> {
      QSFS_TRY(allow(/*write=*/false));
      return namespace_->length(key);
    });
  }

  Result<CheckVerdict> check(Bytes key, Duration /*timeout*/) override {
    return counted([&]() -> Result<CheckVerdict> {
      QSFS_TRY(allow(/*write=*/false));
      return namespace_->check(key);
    });
  }

  Result<ScanPage> scan(Bytes cursor, Duration /*timeout*/) override {
    constexpr std::size_t kScanEntriesMax = 1024;
    return counted([&]() -> Result<ScanPage> {
      QSFS_TRY(allow(/*write=*/false));
      return namespace_->scan(cursor, kScanEntriesMax);
    });
  }

  Result<NamespaceInfo> info(Duration /*timeout*/) override {
    return counted([&]() -> Result<NamespaceInfo> {
      if (namespace_->is_dropped()) return fail(Errc::kNotFound, "namespace " + namespace_->name());
      QSFS_ASSIGN(const SpaceInfo space, engine_->space());
      const NamespaceSettings settings = namespace_->settings();
      const NamespaceCounters counters = namespace_->counters();
      const std::uint64_t limit = settings.data_limit_bytes;
      const std::uint64_t below_limit =
          limit == 0 ? UINT64_MAX : limit - std::min(limit, counters.data_bytes);
      return NamespaceInfo{.mode = settings.mode,
                           .entries = counters.entries,
                           .data_bytes = counters.data_bytes,
                           .data_limit_bytes = limit,
                           .index_bytes = counters.index_bytes,
                           .free_bytes = std::min(below_limit, space.free_bytes),
                           .index_io_errors = counters.index_io_errors,
                           .data_io_errors = counters.data_io_errors,
                           .index_disk_free_bytes = space.free_bytes,
                           .data_disk_free_bytes = space.free_bytes,
                           .worm = settings.worm,
                           .locked = settings.locked || settings.frozen,
                           .has_password = !settings.password.empty(),
                           .is_public = settings.is_public};
    });
  }

  Result<ServerInfo> server_info(Duration /*timeout*/) override {
    return counted([&]() -> Result<ServerInfo> {
      const auto up = std::chrono::duration_cast<std::chrono::seconds>(clock_.now() - opened_at_);
      return ServerInfo{.instance_id = engine_->instance_id(),
                        .uptime_s = static_cast<std::uint64_t>(up.count())};
    });
  }

  BackendStats stats() const override {
    return {.requests = requests_,
            .errors = errors_,
            .bytes_sent = bytes_sent_,
            .bytes_received = bytes_received_};
  }

 private:
  template <class F>
  auto counted(F&& call) -> decltype(call()) {
    ++requests_;
    auto result = call();
    if (!result) ++errors_;
    return result;
  }

  Status allow(bool write) const {
    const NamespaceSettings settings = namespace_->settings();
    if (settings.frozen) return fail(Errc::kLocked, namespace_->name() + " is frozen");
    if (write && settings.locked) return fail(Errc::kLocked, namespace_->name() + " is locked");
    return {};
  }

  std::uint32_t unix_time_s() const {
    const auto now = std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count();
    return static_cast<std::uint32_t>(std::clamp<std::int64_t>(now, 0, UINT32_MAX));
  }

  // Shared by all backends of the directory.
  const std::shared_ptr<Engine> engine_;
  const std::shared_ptr<EngineNamespace> namespace_;
  Clock& clock_;
  const MonotonicTime opened_at_;
  std::atomic<std::uint64_t> requests_ = 0;
  std::atomic<std::uint64_t> errors_ = 0;
  std::atomic<std::uint64_t> bytes_sent_ = 0;
  std::atomic<std::uint64_t> bytes_received_ = 0;
};

Result<std::shared_ptr<EngineNamespace>> open_namespace(Engine& engine,
                                                        const BackendOptions& options) {
  const std::string& name = options.name_space;
  auto found = engine.find_namespace(name);
  const bool is_new_default = found != nullptr && name == "default" &&
                              found->counters().next_id == 0 &&
                              found->settings().mode != options.directory_mode;
  if (is_new_default) {
    // Made with the engine, before anyone could say in which mode.
    NamespaceSettings settings = found->settings();
    settings.mode = options.directory_mode;
    const Status changed = engine.change_settings(name, settings);
    if (!changed && changed.error().code != Errc::kPermission) {
      return std::unexpected(changed.error());
    }
  }
  if (found == nullptr) {
    auto made = engine.create_namespace(name, {.mode = options.directory_mode,
                                               .password = options.password,
                                               .is_public = options.password.empty()});
    if (made) return made;
    // Another backend of this process may have been faster.
    if (made.error().code != Errc::kExists) return made;
    found = engine.find_namespace(name);
    if (found == nullptr) return made;
  }
  return found;
}

}  // namespace

Result<std::unique_ptr<Backend>> make_embedded_backend(const BackendOptions& options, Clock& clock,
                                                       Random& /*random*/) {
  QSFS_CHECK(options.address.kind == BackendAddress::Kind::kDirectory);
  QSFS_ASSIGN(auto engine, engine_registry().open(options.address.path));
  QSFS_ASSIGN(auto name_space, open_namespace(*engine, options));
  const NamespaceSettings settings = name_space->settings();
  const std::string noun = options.address.to_string() + ", namespace " + options.name_space;
  if (!settings.password.empty() && settings.password != options.password) {
    return fail(Errc::kAccess, noun + ": it has another password");
  }
  if (settings.mode != options.directory_mode) {
    return fail(Errc::kInvalidArgument,
                noun + ": it exists in the other mode (user or sequential); use another namespace");
  }
  return std::make_unique<EmbeddedBackend>(std::move(engine), std::move(name_space), clock);
}

}  // namespace qsfs::zdb
