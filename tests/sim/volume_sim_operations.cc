// What a simulated user does: random operations, applied to the volume and to the model alike.
#include <sys/stat.h>

#include <algorithm>
#include <functional>

#include "tests/sim/volume_sim.h"

namespace qsfs::sim {

enum class OperationKind {
  kCreate,
  kWrite,
  kTruncate,
  kMkdir,
  kSymlink,
  kLink,
  kUnlink,
  kRmdir,
  kRename,
  kSetXattr,
  kChmod,
  kPunch,
};

struct SimOperation {
  OperationKind kind = OperationKind::kCreate;
  std::string path;
  std::string other;  // New name, target, or attribute.
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  Buffer data;
  std::uint32_t mode = 0;
};

namespace {

constexpr std::uint64_t kFileSizeMax = 300'000;

std::pair<std::string, std::string> split(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return {path.substr(0, slash == std::string::npos ? 0 : slash),
          slash == std::string::npos ? path : path.substr(slash + 1)};
}

fs::Timespec to_timespec(WallTime at) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(at);
  return {.seconds = seconds.count(),
          .nanoseconds = static_cast<std::uint32_t>((at - seconds).count())};
}

}  // namespace

std::vector<std::string> VolumeSim::paths(std::uint32_t type) const {
  return history_.back().paths(type);
}

std::string VolumeSim::new_path() {
  const std::vector<std::string> folders = paths(S_IFDIR);
  const std::string& folder = folders[dice(folders.size())];
  return (folder.empty() ? "" : folder + "/") + "n" + std::to_string(dice(12));
}

SimOperation VolumeSim::make_operation() {
  SimOperation operation;
  const std::vector<std::string> files = paths(S_IFREG);
  operation.kind = static_cast<OperationKind>(dice(12));
  if (files.empty()) operation.kind = OperationKind::kCreate;
  // Writes are what fills segments.
  if (!files.empty() && dice(2) == 0) operation.kind = OperationKind::kWrite;
  const auto any_path = [&] {
    const std::vector<std::string> all = paths(0);
    return all[dice(all.size())];
  };
  switch (operation.kind) {
    case OperationKind::kCreate:
    case OperationKind::kMkdir:
      operation.path = new_path();
      break;
    case OperationKind::kSymlink:
      operation.path = new_path();
      operation.other = std::string(1 + dice(200), 't');
      break;
    case OperationKind::kUnlink:
    case OperationKind::kRmdir:
      operation.path = any_path();
      break;
    case OperationKind::kRename:
      operation.path = any_path();
      operation.other = new_path();
      break;
    case OperationKind::kLink:
      operation.path = files[dice(files.size())];
      operation.other = new_path();
      break;
    default:
      operation.path = files[dice(files.size())];
      break;
  }
  operation.mode = static_cast<std::uint32_t>(dice(0777 + 1));
  operation.offset = dice(4) == 0 ? dice(kFileSizeMax) : dice(20'000);
  operation.length = dice(3) == 0 ? dice(40'000) : dice(5000);
  if (operation.kind == OperationKind::kWrite || operation.kind == OperationKind::kSetXattr) {
    operation.data.resize(operation.kind == OperationKind::kWrite ? 1 + operation.length
                                                                  : dice(300));
    // Half of it compresses.
    if (dice(2) == 0)
      random_.fill(operation.data);
    else
      std::ranges::fill(operation.data, static_cast<std::byte>(dice(256)));
    operation.other = "user.a" + std::to_string(dice(3));
  }
  return operation;
}

Result<fs::InodeNumber> VolumeSim::real_inode(const std::string& path) {
  fs::InodeNumber at = fs::kRootInode;
  std::string_view rest = path;
  while (!rest.empty()) {
    const std::size_t slash = rest.find('/');
    auto found = service_->volume().lookup(at, rest.substr(0, slash));
    if (!found) return std::unexpected(found.error());
    at = found->ino;
    rest.remove_prefix(slash == std::string_view::npos ? rest.size() : slash + 1);
  }
  return at;
}

Result<ModelFs::Ino> VolumeSim::model_inode(ModelFs& model, const std::string& path) const {
  ModelFs::Ino at = ModelFs::kRoot;
  std::string_view rest = path;
  while (!rest.empty()) {
    const std::size_t slash = rest.find('/');
    QSFS_ASSIGN(at, model.lookup(at, rest.substr(0, slash)));
    rest.remove_prefix(slash == std::string_view::npos ? rest.size() : slash + 1);
  }
  return at;
}

namespace {

const fs::Caller kCaller{.uid = 0, .gid = 0, .umask = 022, .request_id = 0};

template <class T>
Status status_of(const Result<T>& result) {
  if (result) return {};
  return std::unexpected(result.error());
}

// The same operation on either side: the two have one API but for the types of inodes and a few
// arguments.
template <class Find, class Side, class Gone>
Status apply(const SimOperation& operation, Side& side, const Find& find, const Gone& gone,
             const auto& link, const auto& unlink, const auto& rmdir, const auto& rename,
             const auto& set_xattr) {
  const auto [parent_path, name] = split(operation.path);
  if (name.empty() && operation.kind != OperationKind::kChmod)
    return fail(Errc::kInvalidArgument, "the root");
  QSFS_ASSIGN(const auto parent, find(parent_path));
  switch (operation.kind) {
    case OperationKind::kCreate:
      return status_of(side.make_node(parent, name, S_IFREG | operation.mode, 0, kCaller));
    case OperationKind::kMkdir:
      return status_of(side.make_directory(parent, name, S_IFDIR | 0755, kCaller));
    case OperationKind::kSymlink:
      return status_of(side.make_symlink(parent, name, operation.other, kCaller));
    case OperationKind::kUnlink:
      return gone(unlink(parent, name));
    case OperationKind::kRmdir:
      return gone(rmdir(parent, name));
    case OperationKind::kRename: {
      const auto [new_parent_path, new_name] = split(operation.other);
      QSFS_ASSIGN(const auto new_parent, find(new_parent_path));
      return gone(rename(parent, name, new_parent, new_name));
    }
    default:
      break;
  }
  QSFS_ASSIGN(const auto ino, find(operation.path));
  switch (operation.kind) {
    case OperationKind::kLink: {
      const auto [new_parent_path, new_name] = split(operation.other);
      QSFS_ASSIGN(const auto new_parent, find(new_parent_path));
      return link(ino, new_parent, new_name);
    }
    case OperationKind::kWrite:
      return side.write(ino, operation.offset, operation.data, kCaller);
    case OperationKind::kTruncate: {
      fs::AttributeChange change;
      change.size = operation.offset;
      const auto done = side.set_attributes(ino, change, kCaller);
      if (!done) return std::unexpected(done.error());
      return {};
    }
    case OperationKind::kChmod: {
      fs::AttributeChange change;
      change.mode = operation.mode;
      const auto done = side.set_attributes(ino, change, kCaller);
      if (!done) return std::unexpected(done.error());
      return {};
    }
    case OperationKind::kSetXattr:
      return set_xattr(ino);
    case OperationKind::kPunch:
      return side.allocate(ino, fs::AllocateMode::kPunchHole, operation.offset,
                           operation.length + 1, kCaller);
    default:
      return fail(Errc::kInternal, "unknown operation");
  }
}

}  // namespace

Status VolumeSim::apply_real(const SimOperation& operation) {
  fs::Volume& volume = service_->volume();
  const auto gone = [&](const Result<std::optional<fs::InodeNumber>>& removed) -> Status {
    if (!removed) return std::unexpected(removed.error());
    // Nobody holds it: its space comes back at once.
    if (*removed) return volume.forget_orphan(**removed);
    return {};
  };
  return apply(
      operation, volume, [&](const std::string& path) { return real_inode(path); }, gone,
      [&](auto ino, auto parent, const auto& name) {
        return status_of(volume.link(ino, parent, name, kCaller));
      },
      [&](auto parent, const auto& name) { return volume.unlink(parent, name, kCaller); },
      [&](auto parent, const auto& name) { return volume.remove_directory(parent, name, kCaller); },
      [&](auto parent, const auto& name, auto new_parent, const auto& new_name) {
        return volume.rename(parent, name, new_parent, new_name, fs::RenameMode::kReplace, kCaller);
      },
      [&](auto ino) {
        return volume.set_xattr(ino, operation.other, operation.data, fs::XattrMode::kEither,
                                kCaller);
      });
}

Status VolumeSim::apply_model(ModelFs& model, const SimOperation& operation) const {
  const auto gone = [&](const Result<std::optional<ModelFs::Ino>>& removed) -> Status {
    if (!removed) return std::unexpected(removed.error());
    if (*removed) model.forget_orphan(**removed);
    return {};
  };
  return apply(
      operation, model, [&](const std::string& path) { return model_inode(model, path); }, gone,
      [&](auto ino, auto parent, const auto& name) { return model.link(ino, parent, name); },
      [&](auto parent, const auto& name) { return model.unlink(parent, name); },
      [&](auto parent, const auto& name) { return model.remove_directory(parent, name); },
      [&](auto parent, const auto& name, auto new_parent, const auto& new_name) {
        return model.rename(parent, name, new_parent, new_name, fs::RenameMode::kReplace);
      },
      [&](auto ino) {
        return model.set_xattr(ino, operation.other, operation.data, fs::XattrMode::kEither);
      });
}

void VolumeSim::change() {
  const SimOperation operation = make_operation();
  note("op " + std::to_string(static_cast<int>(operation.kind)) + " " + operation.path + " " +
       operation.other + " @" + std::to_string(operation.offset) + "+" +
       std::to_string(operation.length));
  ModelFs after = history_.back();
  after.set_time(to_timespec(clock_.wall()));
  const Status want = apply_model(after, operation);
  const Status have = apply_real(operation);
  if (has_crashed()) {
    if (want) in_doubt_ = std::move(after);
    return;
  }
  if (!have && have.error().code == Errc::kNoSpace && config_->cache.limit_bytes != 0) {
    note("no space: too much is not archived");
    return;
  }
  if (want.has_value() != have.has_value() || (!want && want.error().code != have.error().code)) {
    broken("the volume says " + (have ? "ok" : have.error().message()) + ", the model " +
           (want ? "ok" : want.error().message()));
  }
  if (want) history_.push_back(std::move(after));
}

}  // namespace qsfs::sim
