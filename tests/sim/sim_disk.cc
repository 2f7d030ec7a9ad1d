#include "tests/sim/sim_disk.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"
#include "base/random.h"
#include "tests/sim/file_image.h"

namespace qsfs::sim {
namespace {

struct Node {
  explicit Node(bool directory, std::atomic<std::uint64_t>& used)
      : is_directory(directory), image(directory ? nullptr : std::make_unique<FileImage>(used)) {}

  const bool is_directory;
  const std::unique_ptr<FileImage> image;
  std::map<std::string, std::shared_ptr<Node>> entries;  // As written.
  std::map<std::string, std::shared_ptr<Node>> durable;
};
using NodePtr = std::shared_ptr<Node>;

// A change of one directory entry; null: absent.
struct Edit {
  NodePtr directory;
  std::string name;
  NodePtr before;
  NodePtr after;
};

// One call's edits: durable together or not at all.
using Operation = std::vector<Edit>;

// Whether `later` makes no sense without `earlier`.
bool builds_on(const Operation& later, const Operation& earlier) {
  for (const Edit& a : later) {
    for (const Edit& b : earlier) {
      if (a.directory == b.directory && a.name == b.name) return true;
      if (a.before != nullptr && (a.before == b.after || a.before == b.directory)) return true;
      if (a.after != nullptr && a.after == b.after) return true;
    }
  }
  return false;
}

void apply_durably(const Operation& operation) {
  for (const Edit& edit : operation) {
    if (edit.after == nullptr) {
      edit.directory->durable.erase(edit.name);
    } else {
      edit.directory->durable[edit.name] = edit.after;
    }
  }
}

// Whether the call would change what the disk holds.
bool changes_disk(DiskCall call) {
  switch (call) {
    case DiskCall::kWrite:
    case DiskCall::kTruncate:
    case DiskCall::kAllocate:
    case DiskCall::kRemove:
    case DiskCall::kRename:
    case DiskCall::kLink:
    case DiskCall::kCreateDirectory:
    case DiskCall::kRemoveDirectory:
      return true;
    default:
      return false;
  }
}

class SimMapping final : public Mapping {
 public:
  SimMapping(std::shared_ptr<ImageMemory> memory, std::size_t len)
      : memory_(std::move(memory)), len_(len) {}
  MutableBytes bytes() override { return {memory_->data(), len_}; }

 private:
  std::shared_ptr<ImageMemory> memory_;  // Shared with the image until a crash.
  std::size_t len_;
};

}  // namespace

// What survives a life: files, directories, and the plans for this one. Every public function but
// the constructor locks for itself or is a member that REQUIRES the lock.
class SimDisk::Platter {
 public:
  explicit Platter(std::uint64_t seed)
      : random_(seed), root_(std::make_shared<Node>(/*directory=*/true, used_)) {}

  // REQUIRES: mu_. Counts the call; fails when the life is over, or by plan. With kWrite, a failure
  // may come with `partial`: how much of `write_len` bytes is done nevertheless.
  Status enter(std::uint64_t life, DiskCall call, const std::string& path,
               std::uint64_t write_len = 0, std::uint64_t* partial = nullptr) QSFS_REQUIRES(mu_) {
    if (life != life_ || crashed_) return fail_errno(EIO, path + " of a crashed life");
    ++calls_[0];
    if (call != DiskCall::kAny) ++calls_[static_cast<std::size_t>(call)];
    if (crash_in_ != 0 && --crash_in_ == 0) {
      // The caller learns of the crash by the error; what it wrote so far is part of the image.
      if (partial != nullptr && write_len > 0) *partial = random_.below(write_len);
      crash_pending_ = true;
      return fail_errno(EIO, path);
    }
    for (auto fault = faults_.begin(); fault != faults_.end(); ++fault) {
      if (fault->call != DiskCall::kAny && fault->call != call) continue;
      if (path.find(fault->path_contains) == std::string::npos) continue;
      if (fault->nth > 1) {
        --fault->nth;
        continue;
      }
      const int sys_errno = fault->sys_errno;
      if (!fault->from_then_on) faults_.erase(fault);
      if (partial != nullptr && write_len > 0) *partial = random_.below(write_len);
      return fail_errno(sys_errno, path);
    }
    if (read_only_ && changes_disk(call)) return fail_errno(EROFS, path);
    return {};
  }

  // REQUIRES: mu_. Ends the life if enter() met the planned crash. Call with the effect (if any)
  // done.
  void settle() QSFS_REQUIRES(mu_) {
    if (std::exchange(crash_pending_, false)) crash(crash_kind_);
  }

  void crash(CrashKind kind) QSFS_REQUIRES(mu_) {
    if (crashed_) return;
    crashed_ = true;
    locks_.clear();
    if (kind == CrashKind::kPowerLoss) lose_operations();
    std::set<Node*> seen;
    std::vector<FileImage*> images;
    collect_images(*root_, seen, images);
    for (FileImage* image : images) {
      if (kind == CrashKind::kPowerLoss) image->lose_power(random_);
      image->detach();
    }
  }

  // The node at `path`; kNotFound, kNotDirectory.
  Result<NodePtr> find(const std::string& path) QSFS_REQUIRES(mu_) {
    NodePtr node = root_;
    std::size_t at = 0;
    while (at < path.size()) {
      if (path[at] == '/') {
        ++at;
        continue;
      }
      const std::size_t end = std::min(path.find('/', at), path.size());
      if (!node->is_directory) return fail_errno(ENOTDIR, path);
      const auto entry = node->entries.find(path.substr(at, end - at));
      if (entry == node->entries.end()) return fail_errno(ENOENT, path);
      node = entry->second;
      at = end;
    }
    return node;
  }

  struct Place {
    NodePtr directory;
    std::string name;
    NodePtr node;  // Null: nothing there.
  };
  // Where `path` is or would be.
  Result<Place> place(const std::string& path) QSFS_REQUIRES(mu_) {
    const std::size_t slash = path.rfind('/');
    if (path.empty() || path.front() != '/' || slash + 1 == path.size()) {
      return fail_errno(EINVAL, "not an absolute path to a file: " + path);
    }
    Place place;
    QSFS_ASSIGN(place.directory, find(path.substr(0, slash)));
    if (!place.directory->is_directory) return fail_errno(ENOTDIR, path);
    place.name = path.substr(slash + 1);
    const auto entry = place.directory->entries.find(place.name);
    if (entry != place.directory->entries.end()) place.node = entry->second;
    return place;
  }

  void perform(Operation operation) QSFS_REQUIRES(mu_) {
    for (const Edit& edit : operation) {
      if (edit.after == nullptr) {
        edit.directory->entries.erase(edit.name);
      } else {
        edit.directory->entries[edit.name] = edit.after;
      }
    }
    pending_.push_back(std::move(operation));
  }

  // Everything about `directory` is durable, and all that it builds on.
  void sync_directory(const NodePtr& directory) QSFS_REQUIRES(mu_) {
    std::vector<bool> wanted(pending_.size(), false);
    for (std::size_t i = pending_.size(); i-- > 0;) {
      wanted[i] = std::ranges::any_of(
          pending_[i], [&](const Edit& edit) { return edit.directory == directory; });
      for (std::size_t later = i + 1; !wanted[i] && later < pending_.size(); ++later) {
        wanted[i] = wanted[later] && builds_on(pending_[later], pending_[i]);
      }
    }
    std::vector<Operation> left;
    for (std::size_t i = 0; i < pending_.size(); ++i) {
      if (wanted[i]) {
        apply_durably(pending_[i]);
      } else {
        left.push_back(std::move(pending_[i]));
      }
    }
    pending_ = std::move(left);
  }

  NodePtr make_node(bool directory) { return std::make_shared<Node>(directory, used_); }

  // ENOSPC when `missing` more bytes do not fit.
  Status check_room(std::uint64_t missing, const std::string& path) QSFS_REQUIRES(mu_) {
    if (used_ + missing > capacity_) return fail_errno(ENOSPC, path);
    return {};
  }

  Mutex mu_;
  std::atomic<std::uint64_t> used_{0};
  SeededRandom random_ QSFS_GUARDED_BY(mu_);
  NodePtr root_ QSFS_GUARDED_BY(mu_);
  std::vector<Operation> pending_ QSFS_GUARDED_BY(mu_);  // Oldest first.
  std::set<std::string> locks_ QSFS_GUARDED_BY(mu_);

  std::uint64_t life_ QSFS_GUARDED_BY(mu_) = 1;
  bool crashed_ QSFS_GUARDED_BY(mu_) = false;
  std::array<std::uint64_t, kDiskCallKinds> calls_ QSFS_GUARDED_BY(mu_){};
  std::atomic<std::uint64_t> hinted_bytes_{0};
  std::vector<DiskFault> faults_ QSFS_GUARDED_BY(mu_);
  std::uint64_t crash_in_ QSFS_GUARDED_BY(mu_) = 0;
  CrashKind crash_kind_ QSFS_GUARDED_BY(mu_) = CrashKind::kKill;
  bool crash_pending_ QSFS_GUARDED_BY(mu_) = false;
  std::uint64_t capacity_ QSFS_GUARDED_BY(mu_) = UINT64_MAX / 2;
  bool read_only_ QSFS_GUARDED_BY(mu_) = false;
  bool ignore_syncs_ QSFS_GUARDED_BY(mu_) = false;

 private:
  void lose_operations() QSFS_REQUIRES(mu_) {
    // Half of the time like a journalling filesystem, which keeps a prefix of them.
    const bool prefix = random_.below(2) == 0;
    const std::size_t prefix_len = random_.below(pending_.size() + 1);
    std::vector<bool> kept(pending_.size(), false);
    for (std::size_t i = 0; i < pending_.size(); ++i) {
      kept[i] = prefix ? i < prefix_len : random_.below(2) == 0;
      for (std::size_t earlier = 0; kept[i] && earlier < i; ++earlier) {
        kept[i] = kept[earlier] || !builds_on(pending_[i], pending_[earlier]);
      }
      if (kept[i]) apply_durably(pending_[i]);
    }
    pending_.clear();
    restore_entries(*root_);
  }

  static void restore_entries(Node& directory) {
    directory.entries = directory.durable;
    for (const auto& [name, node] : directory.entries) {
      if (node->is_directory) restore_entries(*node);
    }
  }

  static void collect_images(Node& directory, std::set<Node*>& seen,
                             std::vector<FileImage*>& images) {
    for (const auto* entries : {&directory.entries, &directory.durable}) {
      for (const auto& [name, node] : *entries) {
        if (!seen.insert(node.get()).second) continue;
        if (node->is_directory) {
          collect_images(*node, seen, images);
        } else {
          images.push_back(node->image.get());
        }
      }
    }
  }
};

class SimDisk::File final : public DiskFile {
 public:
  File(std::shared_ptr<Platter> platter, std::uint64_t life, NodePtr node, std::string path,
       bool writable)
      : platter_(std::move(platter)),
        life_(life),
        node_(std::move(node)),
        path_(std::move(path)),
        writable_(writable) {}

  Result<std::size_t> pread(std::uint64_t offset, MutableBytes out) override {
    const MutexLock lock(platter_->mu_);
    QSFS_TRY(enter(DiskCall::kRead));
    return node_->image->read(offset, out);
  }

  void will_need(std::uint64_t /*offset*/, std::uint64_t len) override {
    platter_->hinted_bytes_.fetch_add(len, std::memory_order_relaxed);
  }

  Status pwrite(std::uint64_t offset, Bytes bytes) override {
    const MutexLock lock(platter_->mu_);
    QSFS_TRY(check_writable(offset, bytes.size()));
    std::uint64_t partial = 0;
    const Status entered = platter_->enter(life_, DiskCall::kWrite, path_, bytes.size(), &partial);
    Status room;
    if (entered) {
      room = platter_->check_room(node_->image->missing_bytes(offset, bytes.size()), path_);
    }
    if (entered && room) {
      node_->image->write(offset, bytes);
    } else if (partial > 0 &&
               platter_->check_room(node_->image->missing_bytes(offset, partial), path_)) {
      node_->image->write(offset, bytes.first(partial));
    }
    platter_->settle();
    QSFS_TRY(entered);
    return room;
  }

  Status datasync() override {
    const MutexLock lock(platter_->mu_);
    const Status entered = platter_->enter(life_, DiskCall::kDatasync, path_);
    const bool alive = platter_->life_ == life_ && !platter_->crashed_;
    if (!entered && alive && !platter_->crash_pending_) node_->image->lose();
    platter_->settle();
    QSFS_TRY(entered);
    if (!platter_->ignore_syncs_) node_->image->sync();
    return {};
  }

  Status truncate(std::uint64_t size) override {
    const MutexLock lock(platter_->mu_);
    QSFS_TRY(check_writable(size, 0));
    QSFS_TRY(enter(DiskCall::kTruncate));
    node_->image->truncate(size);
    return {};
  }

  Status allocate(std::uint64_t offset, std::uint64_t len) override {
    const MutexLock lock(platter_->mu_);
    QSFS_TRY(check_writable(offset, len));
    QSFS_TRY(enter(DiskCall::kAllocate));
    QSFS_TRY(platter_->check_room(node_->image->missing_bytes(offset, len), path_));
    node_->image->allocate(offset, len);
    return {};
  }

  Result<std::uint64_t> size() override {
    const MutexLock lock(platter_->mu_);
    QSFS_TRY(enter(DiskCall::kSize));
    return node_->image->size();
  }

  Result<std::uint64_t> allocated_bytes() override {
    const MutexLock lock(platter_->mu_);
    QSFS_TRY(enter(DiskCall::kSize));
    return node_->image->allocated_bytes();
  }

  Result<std::unique_ptr<Mapping>> map(std::uint64_t len) override {
    const MutexLock lock(platter_->mu_);
    QSFS_TRY(check_writable(0, len));
    QSFS_TRY(enter(DiskCall::kMap));
    // A store into a hole is a SIGBUS when the disk is full: the seam demands that there is none.
    if (len > node_->image->size() || node_->image->missing_bytes(0, len) > 0) {
      return fail_errno(EINVAL, "map " + path_ + " beyond what is allocated");
    }
    return std::make_unique<SimMapping>(node_->image->map(len), len);
  }

 private:
  Status enter(DiskCall call) QSFS_REQUIRES(platter_->mu_) {
    const Status entered = platter_->enter(life_, call, path_);
    platter_->settle();
    return entered;
  }
  Status check_writable(std::uint64_t offset, std::uint64_t len) {
    if (!writable_) return fail_errno(EBADF, path_ + " is open for reading");
    if (offset > kFileSizeMax || len > kFileSizeMax - offset) return fail_errno(EFBIG, path_);
    return {};
  }

  const std::shared_ptr<Platter> platter_;
  const std::uint64_t life_;
  const NodePtr node_;
  const std::string path_;
  const bool writable_;
};

class SimDisk::Lock final : public FileLock {
 public:
  Lock(std::shared_ptr<Platter> platter, std::uint64_t life, std::string path)
      : platter_(std::move(platter)), life_(life), path_(std::move(path)) {}
  ~Lock() override {
    const MutexLock lock(platter_->mu_);
    if (platter_->life_ == life_) platter_->locks_.erase(path_);
  }

 private:
  const std::shared_ptr<Platter> platter_;
  const std::uint64_t life_;
  const std::string path_;
};

// Every operation of a Disk begins so: one lock, one count, one look at the plans.
#define QSFS_SIM_ENTER(call, path)                                 \
  const MutexLock sim_lock(platter_->mu_);                         \
  {                                                                \
    const Status sim_entered = platter_->enter(life_, call, path); \
    platter_->settle();                                            \
    QSFS_TRY(sim_entered);                                         \
  }

SimDisk::SimDisk(std::uint64_t seed) : platter_(std::make_shared<Platter>(seed)), life_(1) {}
SimDisk::SimDisk(std::shared_ptr<Platter> platter, std::uint64_t life)
    : platter_(std::move(platter)), life_(life) {}
SimDisk::~SimDisk() = default;

Result<std::unique_ptr<DiskFile>> SimDisk::open(const std::string& path, OpenMode mode) {
  QSFS_SIM_ENTER(DiskCall::kOpen, path);
  QSFS_ASSIGN(Platter::Place place, platter_->place(path));
  const bool creates =
      mode == OpenMode::kCreate || mode == OpenMode::kCreateNew || mode == OpenMode::kOpenOrCreate;
  if (place.node == nullptr && !creates) return fail_errno(ENOENT, path);
  if (place.node != nullptr && mode == OpenMode::kCreateNew) return fail_errno(EEXIST, path);
  if (place.node != nullptr && place.node->is_directory) return fail_errno(EISDIR, path);
  if (platter_->read_only_ && (place.node == nullptr || mode != OpenMode::kRead)) {
    return fail_errno(EROFS, path);
  }
  if (place.node == nullptr) {
    QSFS_TRY(platter_->check_room(kPageSize, path));
    place.node = platter_->make_node(/*directory=*/false);
    platter_->perform({Edit{place.directory, place.name, nullptr, place.node}});
  } else if (mode == OpenMode::kCreate) {
    place.node->image->truncate(0);
  }
  return std::make_unique<File>(platter_, life_, place.node, path, mode != OpenMode::kRead);
}

Status SimDisk::remove(const std::string& path) {
  QSFS_SIM_ENTER(DiskCall::kRemove, path);
  QSFS_ASSIGN(const Platter::Place place, platter_->place(path));
  if (place.node == nullptr) return fail_errno(ENOENT, path);
  if (place.node->is_directory) return fail_errno(EISDIR, path);
  platter_->perform({Edit{place.directory, place.name, place.node, nullptr}});
  return {};
}

Status SimDisk::rename(const std::string& from, const std::string& to) {
  QSFS_SIM_ENTER(DiskCall::kRename, from);
  QSFS_ASSIGN(const Platter::Place source, platter_->place(from));
  QSFS_ASSIGN(const Platter::Place target, platter_->place(to));
  if (source.node == nullptr) return fail_errno(ENOENT, from);
  if (source.node == target.node) return {};
  if (target.node != nullptr) {
    if (target.node->is_directory && !source.node->is_directory) return fail_errno(EISDIR, to);
    if (!target.node->is_directory && source.node->is_directory) return fail_errno(ENOTDIR, to);
    if (!target.node->entries.empty()) return fail_errno(ENOTEMPTY, to);
  }
  platter_->perform({Edit{source.directory, source.name, source.node, nullptr},
                     Edit{target.directory, target.name, target.node, source.node}});
  return {};
}

Status SimDisk::link(const std::string& from, const std::string& to) {
  QSFS_SIM_ENTER(DiskCall::kLink, from);
  QSFS_ASSIGN(const Platter::Place source, platter_->place(from));
  QSFS_ASSIGN(const Platter::Place target, platter_->place(to));
  if (source.node == nullptr) return fail_errno(ENOENT, from);
  if (source.node->is_directory) return fail_errno(EPERM, from);
  if (target.node != nullptr) return fail_errno(EEXIST, to);
  platter_->perform({Edit{target.directory, target.name, nullptr, source.node}});
  return {};
}

Status SimDisk::create_directory(const std::string& path) {
  QSFS_SIM_ENTER(DiskCall::kCreateDirectory, path);
  QSFS_ASSIGN(const Platter::Place place, platter_->place(path));
  if (place.node != nullptr) return fail_errno(EEXIST, path);
  platter_->perform(
      {Edit{place.directory, place.name, nullptr, platter_->make_node(/*directory=*/true)}});
  return {};
}

Status SimDisk::remove_directory(const std::string& path) {
  QSFS_SIM_ENTER(DiskCall::kRemoveDirectory, path);
  QSFS_ASSIGN(const Platter::Place place, platter_->place(path));
  if (place.node == nullptr) return fail_errno(ENOENT, path);
  if (!place.node->is_directory) return fail_errno(ENOTDIR, path);
  if (!place.node->entries.empty()) return fail_errno(ENOTEMPTY, path);
  platter_->perform({Edit{place.directory, place.name, place.node, nullptr}});
  return {};
}

Result<std::vector<std::string>> SimDisk::list(const std::string& path) {
  QSFS_SIM_ENTER(DiskCall::kList, path);
  QSFS_ASSIGN(const NodePtr node, platter_->find(path));
  if (!node->is_directory) return fail_errno(ENOTDIR, path);
  std::vector<std::string> names;
  for (const auto& [name, child] : node->entries) names.push_back(name);
  return names;
}

Result<FileInfo> SimDisk::stat(const std::string& path) {
  QSFS_SIM_ENTER(DiskCall::kStat, path);
  QSFS_ASSIGN(const NodePtr node, platter_->find(path));
  return FileInfo{.is_directory = node->is_directory,
                  .size = node->is_directory ? 0 : node->image->size(),
                  .mtime_s = 0};
}

Status SimDisk::sync_directory(const std::string& path) {
  QSFS_SIM_ENTER(DiskCall::kSyncDirectory, path);
  QSFS_ASSIGN(const NodePtr node, platter_->find(path));
  if (!node->is_directory) return fail_errno(ENOTDIR, path);
  if (!platter_->ignore_syncs_) platter_->sync_directory(node);
  return {};
}

Result<SpaceInfo> SimDisk::space(const std::string& path) {
  QSFS_SIM_ENTER(DiskCall::kSpace, path);
  QSFS_TRY(platter_->find(path));
  const std::uint64_t used = platter_->used_;
  return SpaceInfo{.total_bytes = platter_->capacity_,
                   .free_bytes = platter_->capacity_ - std::min(used, platter_->capacity_)};
}

Result<std::unique_ptr<FileLock>> SimDisk::lock_file(const std::string& path) {
  QSFS_SIM_ENTER(DiskCall::kLock, path);
  QSFS_ASSIGN(Platter::Place place, platter_->place(path));
  if (place.node == nullptr) {
    if (platter_->read_only_) return fail_errno(EROFS, path);
    place.node = platter_->make_node(/*directory=*/false);
    platter_->perform({Edit{place.directory, place.name, nullptr, place.node}});
  }
  if (!platter_->locks_.insert(path).second) {
    return fail(Errc::kBusy, path + " is locked by another process");
  }
  return std::make_unique<Lock>(platter_, life_, path);
}

void SimDisk::crash(CrashKind kind) {
  const MutexLock lock(platter_->mu_);
  if (platter_->life_ == life_) platter_->crash(kind);
}

bool SimDisk::crashed() const {
  const MutexLock lock(platter_->mu_);
  return platter_->crashed_ || platter_->life_ != life_;
}

std::unique_ptr<SimDisk> SimDisk::reopen() {
  const MutexLock lock(platter_->mu_);
  QSFS_CHECK(platter_->life_ == life_);
  platter_->crash(CrashKind::kKill);
  ++platter_->life_;
  platter_->crashed_ = false;
  platter_->calls_ = {};
  platter_->hinted_bytes_ = 0;
  platter_->faults_.clear();
  platter_->crash_in_ = 0;
  platter_->capacity_ = UINT64_MAX / 2;
  platter_->read_only_ = false;
  platter_->ignore_syncs_ = false;
  return std::unique_ptr<SimDisk>(new SimDisk(platter_, platter_->life_));
}

void SimDisk::crash_at_call(std::uint64_t nth, CrashKind kind) {
  const MutexLock lock(platter_->mu_);
  platter_->crash_in_ = nth;
  platter_->crash_kind_ = kind;
}

void SimDisk::inject(DiskFault fault) {
  const MutexLock lock(platter_->mu_);
  platter_->faults_.push_back(std::move(fault));
}

void SimDisk::clear_faults() {
  const MutexLock lock(platter_->mu_);
  platter_->faults_.clear();
}

std::uint64_t SimDisk::hinted_bytes() const { return platter_->hinted_bytes_; }

std::uint64_t SimDisk::calls(DiskCall call) const {
  const MutexLock lock(platter_->mu_);
  return platter_->calls_[static_cast<std::size_t>(call)];
}

void SimDisk::set_capacity(std::uint64_t bytes) {
  const MutexLock lock(platter_->mu_);
  platter_->capacity_ = bytes;
}

std::uint64_t SimDisk::used_bytes() const { return platter_->used_; }

void SimDisk::set_read_only(bool on) {
  const MutexLock lock(platter_->mu_);
  platter_->read_only_ = on;
}

void SimDisk::set_ignore_syncs(bool on) {
  const MutexLock lock(platter_->mu_);
  platter_->ignore_syncs_ = on;
}

bool SimDisk::corrupt(const std::string& path, std::uint64_t offset, std::byte mask) {
  const MutexLock lock(platter_->mu_);
  const auto node = platter_->find(path);
  if (!node || (*node)->is_directory || offset >= (*node)->image->size()) return false;
  (*node)->image->corrupt(offset, mask);
  return true;
}

}  // namespace qsfs::sim
