#include "zdb/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <thread>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "zdb/namespace_store.h"
#include "zdb/storage_format.h"

namespace qsfs::zdb {
namespace {

constexpr std::string_view kDefaultNamespace = "default";
constexpr std::uint64_t kDataFileBytesMin = 4 * kKiB;
constexpr std::size_t kInstanceIdBytes = 8;
constexpr Duration kTidyInterval = std::chrono::seconds(1);

std::optional<std::uint32_t> parse_directory_number(std::string_view name) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc{} || end != name.data() + name.size() || number == 0) return std::nullopt;
  return number;
}

bool holds_data(const std::vector<std::string>& names) {
  return std::ranges::any_of(names,
                             [](const std::string& name) { return name.ends_with(".data"); });
}

Status check_name(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.size() > kNamespaceLenMax ||
      name.find('/') != std::string_view::npos) {
    return fail(Errc::kInvalidArgument,
                "a namespace has 1 to 128 bytes, none of them '/', and is not \".\" or \"..\"");
  }
  return {};
}

// The locks: names_mu_ guards the map and is never held over I/O; admin_ makes operations on whole
// namespaces exclude each other without holding a lock over their I/O.
class StorageEngine final : public Engine {
 public:
  StorageEngine(const StoreContext& context, std::shared_ptr<FileLock> owner_lock,
                std::string instance_id)
      : context_(context),
        owner_lock_(std::move(owner_lock)),
        instance_id_(std::move(instance_id)) {}

  ~StorageEngine() override {
    {
      MutexLock lock(mu_);
      stopping_ = true;
    }
    stop_changed_.notify_all();
    if (context_.sync_bell != nullptr) context_.sync_bell->stop();
    if (syncer_.joinable()) syncer_.join();
    if (tidier_.joinable()) tidier_.join();
    // Sessions may keep a namespace; what was acknowledged so far is made durable now.
    const Status synced = sync();
    if (!synced) QSFS_LOG_ERROR("closing: {}", synced.error().message());
  }

  Status start() {
    QSFS_TRY(prepare_directory());
    QSFS_TRY(open_namespaces());
    if (find_namespace(kDefaultNamespace) == nullptr) {
      QSFS_ASSIGN(const auto made,
                  create_namespace(kDefaultNamespace, {.mode = context_.options.default_mode}));
      QSFS_CHECK(made != nullptr);
    }
    const EngineOptions& options = context_.options;
    if (context_.sync_bell != nullptr) {
      syncer_ = start_thread("zdb-sync", [this](const std::stop_token&) { sync_regularly(); });
    }
    if ((options.compaction || options.scrub) && options.background_thread) {
      tidier_ = start_thread("zdb-tidy", [this](const std::stop_token&) { tidy_regularly(); });
    }
    return {};
  }

  std::shared_ptr<EngineNamespace> find_namespace(std::string_view name) override {
    return find_store(name);
  }

  std::vector<std::string> namespace_names() override {
    MutexLock lock(mu_);
    std::vector<std::string> names;
    names.reserve(stores_.size());
    for (const auto& [name, store] : stores_) names.push_back(name);
    return names;
  }

  Result<std::shared_ptr<EngineNamespace>> create_namespace(
      std::string_view name, const NamespaceSettings& settings) override {
    QSFS_TRY(check_name(name));
    QSFS_TRY(check_settings(settings));
    const AdminTurn turn(*this);
    if (find_store(name) != nullptr) {
      return fail(Errc::kExists, "namespace " + std::string(name));
    }
    const std::string directory = namespace_directory(next_number_++);
    Disk& disk = context_.disk;
    QSFS_TRY(disk.create_directory(directory));
    QSFS_TRY(write_settings(directory, {.name = std::string(name), .settings = settings}));
    QSFS_TRY(disk.sync_directory(parent_path(directory)));
    failpoint("zdb.namespace_created");
    QSFS_ASSIGN(auto store, NamespaceStore::open(context_, owner_lock_, directory,
                                                 std::string(name), settings));
    MutexLock lock(mu_);
    stores_.emplace(std::string(name), store);
    return std::shared_ptr<EngineNamespace>(store);
  }

  Status drop_namespace(std::string_view name) override {
    if (name == kDefaultNamespace) {
      return fail(Errc::kPermission, "the default namespace cannot be removed");
    }
    const AdminTurn turn(*this);
    const auto store = find_store(name);
    if (store == nullptr) return fail(Errc::kNotFound, "namespace " + std::string(name));
    // From here on the next open finishes the job.
    QSFS_TRY(write_settings(
        store->directory(),
        {.name = std::string(name), .settings = store->settings(), .dropped = true}));
    failpoint("zdb.namespace_dropped");
    {
      MutexLock lock(mu_);
      stores_.erase(stores_.find(name));
    }
    store->mark_dropped();
    const Status removed = remove_namespace_files(store->directory());
    if (!removed) {
      QSFS_LOG_WARN("namespace {}: its files stay until the next start: {}", name,
                    removed.error().message());
    }
    return {};
  }

  Status change_settings(std::string_view name, const NamespaceSettings& settings) override {
    QSFS_TRY(check_settings(settings));
    const AdminTurn turn(*this);
    const auto store = find_store(name);
    if (store == nullptr) return fail(Errc::kNotFound, "namespace " + std::string(name));
    const NamespaceSettings before = store->settings();
    QSFS_TRY(store->apply_settings(settings));
    const Status written =
        write_settings(store->directory(), {.name = std::string(name), .settings = settings});
    if (written) return {};
    const Status restored = store->apply_settings(before);
    if (!restored) QSFS_LOG_ERROR("namespace {}: {}", name, restored.error().message());
    return written;
  }

  Status reload_namespace(std::string_view name) override {
    const AdminTurn turn(*this);
    const auto store = find_store(name);
    if (store == nullptr) return fail(Errc::kNotFound, "namespace " + std::string(name));
    const NamespaceSettings settings = store->settings();
    QSFS_TRY(store->close());
    QSFS_ASSIGN(auto reopened, NamespaceStore::open(context_, owner_lock_, store->directory(),
                                                    std::string(name), settings));
    MutexLock lock(mu_);
    stores_.find(name)->second = std::move(reopened);
    return {};
  }

  std::shared_ptr<EngineNamespace> successor_of(const EngineNamespace& dropped) override {
    const AdminTurn turn(*this);
    auto store = find_store(dropped.name());
    // Another directory: a namespace that was made later under the same name.
    if (store == nullptr || store->is_dropped()) return nullptr;
    return store->directory() == dropped.place().directory ? store : nullptr;
  }

  Status sync() override {
    Status first_failure;
    for (const auto& store : stores()) {
      Status synced = store->sync();
      if (!synced && first_failure) first_failure = std::move(synced);
    }
    return first_failure;
  }

  bool tidy() override {
    bool did_something = false;
    const auto should_stop = [this] { return is_stopping(); };
    const EngineOptions& options = context_.options;
    for (const auto& store : stores()) {
      if (is_stopping()) break;
      if (options.compaction) {
        Pacer pacer(context_.clock, options.compaction_bytes_per_s);
        did_something = store->compact(pacer, should_stop) || did_something;
      }
      if (options.scrub) {
        Pacer pacer(context_.clock, options.scrub_bytes_per_s);
        did_something = store->scrub(pacer, should_stop) || did_something;
      }
    }
    return did_something;
  }

  Result<SpaceInfo> space() override { return context_.disk.space(context_.options.directory); }
  const std::string& instance_id() const override { return instance_id_; }

 private:
  // One operation on whole namespaces at a time.
  class AdminTurn {
   public:
    explicit AdminTurn(StorageEngine& engine) : engine_(engine) {
      MutexLock lock(engine_.mu_);
      while (engine_.admin_busy_) engine_.admin_changed_.wait(engine_.mu_);
      engine_.admin_busy_ = true;
    }
    ~AdminTurn() {
      MutexLock lock(engine_.mu_);
      engine_.admin_busy_ = false;
      engine_.admin_changed_.notify_one();
    }
    AdminTurn(const AdminTurn&) = delete;
    AdminTurn& operator=(const AdminTurn&) = delete;

   private:
    StorageEngine& engine_;
  };

  std::string namespaces_path() const { return context_.options.directory + "/namespaces"; }
  std::string namespace_directory(std::uint32_t number) const {
    return fmt::format("{}/{:08}", namespaces_path(), number);
  }

  static Status check_settings(const NamespaceSettings& settings) {
    if (settings.password.size() <= kPasswordLenMax) return {};
    return fail(Errc::kInvalidArgument, "a password has at most 255 bytes");
  }

  Status write_settings(const std::string& directory, const StoredSettings& stored) {
    return write_file_atomically(context_.disk, directory + "/settings", encode_settings(stored));
  }

  // Creates the mark of our directories, or checks the one that is there.
  Status prepare_directory() {
    Disk& disk = context_.disk;
    const std::string mark = context_.options.directory + "/format";
    const auto content = read_whole_file(disk, mark, kSettingsFileLenMax);
    if (content) return check_format_file(*content, mark);
    if (content.error().code != Errc::kNotFound) return std::unexpected(content.error());
    const auto namespaces = disk.stat(namespaces_path());
    if (namespaces) {
      return fail(Errc::kCorruption,
                  mark +
                      ": missing beside existing namespaces; restore it (any directory of this "
                      "version has the same) or use another directory");
    }
    if (namespaces.error().code != Errc::kNotFound) return std::unexpected(namespaces.error());
    return write_file_atomically(disk, mark, encode_format_file());
  }

  Status open_namespaces() {
    Disk& disk = context_.disk;
    QSFS_TRY(create_directories(disk, namespaces_path()));
    QSFS_ASSIGN(const std::vector<std::string> directories, disk.list(namespaces_path()));
    for (const std::string& directory : directories) {
      const auto number = parse_directory_number(directory);
      if (!number) continue;
      next_number_ = std::max(next_number_, *number + 1);
      QSFS_TRY(open_namespace(namespaces_path() + "/" + directory));
    }
    return {};
  }

  Status open_namespace(const std::string& directory) {
    const std::string path = directory + "/settings";
    const auto content = read_whole_file(context_.disk, path, kSettingsFileLenMax);
    if (!content) {
      if (content.error().code != Errc::kNotFound) return std::unexpected(content.error());
      QSFS_ASSIGN(const std::vector<std::string> names, context_.disk.list(directory));
      if (holds_data(names)) {
        return fail(Errc::kCorruption, path + ": missing beside data; restore it, or move " +
                                           directory + " away to open the others");
      }
      // A creation or a removal that did not come to its end.
      return remove_namespace_files(directory);
    }
    QSFS_ASSIGN(const StoredSettings stored, decode_settings(*content, path));
    if (stored.dropped) return remove_namespace_files(directory);
    QSFS_TRY(check_name(stored.name));
    QSFS_ASSIGN(auto store, NamespaceStore::open(context_, owner_lock_, directory, stored.name,
                                                 stored.settings));
    MutexLock lock(mu_);
    if (!stores_.emplace(stored.name, std::move(store)).second) {
      return fail(Errc::kCorruption,
                  directory + ": a second namespace of the same name; move one of them away");
    }
    return {};
  }

  // The settings go last: while they are there, they say that the rest is to be removed.
  Status remove_namespace_files(const std::string& directory) {
    Disk& disk = context_.disk;
    QSFS_ASSIGN(const std::vector<std::string> names, disk.list(directory));
    for (const std::string& name : names) {
      if (name != "settings") QSFS_TRY(disk.remove(directory + "/" + name));
    }
    QSFS_TRY(disk.sync_directory(directory));
    if (std::ranges::find(names, "settings") != names.end()) {
      QSFS_TRY(disk.remove(directory + "/settings"));
    }
    QSFS_TRY(disk.remove_directory(directory));
    return disk.sync_directory(parent_path(directory));
  }

  std::shared_ptr<NamespaceStore> find_store(std::string_view name) {
    MutexLock lock(mu_);
    const auto found = stores_.find(name);
    return found == stores_.end() ? nullptr : found->second;
  }

  std::vector<std::shared_ptr<NamespaceStore>> stores() {
    MutexLock lock(mu_);
    std::vector<std::shared_ptr<NamespaceStore>> all;
    all.reserve(stores_.size());
    for (const auto& [name, store] : stores_) all.push_back(store);
    return all;
  }

  bool is_stopping() {
    MutexLock lock(mu_);
    return stopping_;
  }

  void tidy_regularly() {
    while (true) {
      {
        MutexLock lock(mu_);
        if (!stopping_) stop_changed_.wait_for(mu_, kTidyInterval);
        if (stopping_) return;
      }
      while (tidy() && !is_stopping()) {
      }
    }
  }

  void sync_regularly() {
    while (context_.sync_bell->wait(context_.options.sync_interval)) {
      for (const auto& store : stores()) {
        const Status synced = store->sync_if_dirty();
        if (!synced) QSFS_LOG_ERROR("{}", synced.error().message());
      }
    }
  }

  const StoreContext context_;
  const std::shared_ptr<FileLock> owner_lock_;  // Shared with the namespaces.
  const std::string instance_id_;

  Mutex mu_;
  CondVar admin_changed_;
  CondVar stop_changed_;
  // Shared with the sessions that use them.
  std::map<std::string, std::shared_ptr<NamespaceStore>, std::less<>> stores_ QSFS_GUARDED_BY(mu_);
  bool admin_busy_ QSFS_GUARDED_BY(mu_) = false;
  bool stopping_ QSFS_GUARDED_BY(mu_) = false;

  std::uint32_t next_number_ = 1;  // Of namespace directories; only in an AdminTurn or start().
  std::jthread syncer_;
  std::jthread tidier_;
};

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& options, Disk& disk, Clock& clock,
                                             Random& random) {
  if (!options.directory.starts_with('/')) {
    return fail(Errc::kInvalidArgument,
                "directory \"" + options.directory + "\": the path is not absolute");
  }
  QSFS_TRY(create_directories(disk, options.directory));
  QSFS_ASSIGN(std::shared_ptr<FileLock> owner_lock, disk.lock_file(options.directory + "/lock"));
  StoreContext context{.options = options, .disk = disk, .clock = clock, .random = random};
  if (options.sync == SyncPolicy::kInterval && options.background_thread)
    context.sync_bell = std::make_shared<SyncBell>();
  context.options.data_file_bytes_max =
      std::clamp(options.data_file_bytes_max, kDataFileBytesMin, kDataFileBytesLimit);
  std::array<std::byte, kInstanceIdBytes> id;
  random.fill(id);
  auto engine = std::make_unique<StorageEngine>(context, std::move(owner_lock), to_hex(id));
  QSFS_TRY(engine->start());
  return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace qsfs::zdb
