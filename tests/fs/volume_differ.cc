#include "tests/fs/volume_differ.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "fs/volume/volume_impl.h"

namespace qsfs::fs {
namespace {

constexpr std::size_t kHistoryShown = 40;

Timespec time_of(const Clock& clock) {
  const auto wall = clock.wall();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(wall);
  return {.seconds = seconds.count(),
          .nanoseconds = static_cast<std::uint32_t>((wall - seconds).count())};
}

}  // namespace

VolumeDiffer::VolumeDiffer(VolumeWorld& world, std::uint64_t seed)
    : world_(world), random_(seed), model_(time_of(world.clock())) {
  inodes_[sim::ModelFs::kRoot] = kRootInode;
  states_.push_back({model_, inodes_, orphans_});
}

std::string VolumeDiffer::history() const {
  const std::size_t from = history_.size() > kHistoryShown ? history_.size() - kHistoryShown : 0;
  std::string text;
  for (std::size_t i = from; i < history_.size(); ++i) {
    text += fmt::format("{}: {}\n", i, history_[i]);
  }
  return text;
}

bool VolumeDiffer::differ(std::string how) {
  difference_ = std::move(how);
  return false;
}

void VolumeDiffer::note(std::string what) { history_.push_back(std::move(what)); }

template <class A, class B>
bool VolumeDiffer::same_outcome(const Result<A>& real, const Result<B>& model) {
  const std::string real_text = real ? "ok" : std::string(to_string(real.error().code));
  const std::string model_text = model ? "ok" : std::string(to_string(model.error().code));
  if (!history_.empty()) history_.back() += " -> " + model_text;
  ++outcomes_[model_text];
  if (real_text == model_text) return true;
  if (expect_faults_ && !real) {
    const Errc code = real.error().code;
    faulted_ = code == Errc::kIo || code == Errc::kNoSpace || code == Errc::kReadOnly;
  }
  return differ(fmt::format("volume: {} ({}), model: {}", real_text,
                            real ? "" : real.error().message(), model_text));
}

// --- Choices.

std::string VolumeDiffer::some_name() {
  static const std::array<std::string, 10> kNames = {
      "a", "b", "c", "d", "file", "dir", "sub", "x.txt", std::string(255, 'n'), "\xc3\xa9"};
  if (chance(1)) return std::array<std::string, 5>{"", ".", "..", "a/b", "\0"}[below(5)];
  if (chance(1)) return std::string(256, 'm');
  return kNames[below(kNames.size())];
}

VolumeDiffer::Both VolumeDiffer::some_inode() {
  const auto at = std::next(inodes_.begin(), static_cast<std::ptrdiff_t>(below(inodes_.size())));
  return {.model = at->first, .real = at->second};
}

VolumeDiffer::Both VolumeDiffer::some_directory() {
  for (int i = 0; i < 8; ++i) {
    const Both at = some_inode();
    if (S_ISDIR((*model_.node(at.model))->mode)) return at;
  }
  return {.model = sim::ModelFs::kRoot, .real = kRootInode};
}

VolumeDiffer::Both VolumeDiffer::some_file() {
  for (int i = 0; i < 16; ++i) {
    const Both at = some_inode();
    if (S_ISREG((*model_.node(at.model))->mode)) return at;
  }
  return some_inode();
}

Caller VolumeDiffer::some_caller() {
  Caller caller{.umask = chance(30) ? 022u : 0u, .request_id = below(1000)};
  if (chance(50)) {
    caller.uid = 1000;
    caller.gid = 100;
  }
  return caller;
}

std::uint64_t VolumeDiffer::some_offset() {
  const std::uint64_t kind = below(20);
  if (kind < 8) return below(64) * 4096;
  if (kind < 17) return below(300'000);
  if (kind < 18) return (std::uint64_t{1} << 40) + below(10'000);
  if (kind < 19) return INT64_MAX - below(20'000);
  return 0;
}

std::uint64_t VolumeDiffer::some_length() {
  const std::uint64_t kind = below(20);
  if (kind < 6) return 4096 * (1 + below(8));
  if (kind < 10) return 1 + below(100);
  if (kind < 18) return 1 + below(20'000);
  if (kind < 19) return 100'000 + below(300'000);
  return 0;
}

Buffer VolumeDiffer::some_bytes(std::uint64_t length) {
  Buffer bytes(length);
  random_.fill(bytes);
  return bytes;
}

// --- Comparisons.

bool VolumeDiffer::same_attributes(const Both& at) {
  const auto real = world_.volume().get_attributes(at.real);
  if (!real) return differ("get_attributes: " + real.error().message());
  const sim::ModelFs::Node& node = **model_.node(at.model);
  const bool directory = S_ISDIR(node.mode);
  const std::uint64_t size = S_ISLNK(node.mode) ? node.target.size() : node.content.size();
  const auto check = [&](const char* what, auto a, auto b) {
    if (a == b) return true;
    return differ(fmt::format("{} of inode {}", what, at.real));
  };
  return check("mode", real->mode, node.mode) && check("nlink", real->nlink, node.nlink) &&
         check("uid", real->uid, node.uid) && check("gid", real->gid, node.gid) &&
         check("rdev", real->rdev, node.rdev) && (directory || check("size", real->size, size)) &&
         check("allocated", real->allocated_bytes, node.content.written_bytes()) &&
         check("atime", real->atime, node.atime) && check("mtime", real->mtime, node.mtime) &&
         check("ctime", real->ctime, node.ctime);
}

bool VolumeDiffer::add(const Result<Attributes>& real, const Result<ModelIno>& model) {
  if (!same_outcome(real, model)) return false;
  if (!real) return true;
  for (const auto& [known, used] : inodes_) {
    if (used == real->ino) return differ("inode number used twice");
  }
  inodes_[*model] = real->ino;
  return same_attributes({.model = *model, .real = real->ino});
}

bool VolumeDiffer::same_orphan(const Result<std::optional<InodeNumber>>& real,
                               const Result<std::optional<ModelIno>>& model) {
  if (!same_outcome(real, model)) return false;
  if (!real) return true;
  if (real->has_value() != model->has_value()) return differ("orphan");
  if (!*real) return true;
  if (**real != inodes_.at(**model)) return differ("orphan is another inode");
  orphans_.push_back(**model);
  return true;
}

bool VolumeDiffer::compare() {
  if (const std::string broken = world_.broken_invariant(); !broken.empty()) {
    return differ("invariant: " + broken);
  }
  const auto image = sim::image_of(world_.volume());
  if (!image) return differ("walk: " + image.error().message());
  const std::string difference =
      sim::first_difference(model_.image(), *image, sim::CompareTimes::kYes);
  if (!difference.empty()) return differ(difference);
  return compare_usage();
}

bool VolumeDiffer::compare_usage() {
  const VolumeUsage real = world_.volume().usage();
  const VolumeUsage model = model_.usage();
  if (real.used_bytes != model.used_bytes || real.inodes != model.inodes) return differ("usage");
  return true;
}

bool VolumeDiffer::restart() {
  note("restart");
  const Status started = world_.restart();
  if (!started) return differ("restart: " + started.error().message());
  return forget_orphans();
}

bool VolumeDiffer::forget_orphans() {
  const Status forgotten = world_.volume().forget_all_orphans();
  if (!forgotten) return differ("orphans: " + forgotten.error().message());
  // A crash must not bring some of them back: the states of that are not kept.
  const Status synced = world_.volume().sync();
  if (!synced) return differ("sync: " + synced.error().message());
  model_.forget_all_orphans();
  orphans_.clear();
  std::erase_if(inodes_, [this](const auto& entry) { return !model_.node(entry.first); });
  states_.assign(1, {model_, inodes_, orphans_});
  return compare();
}

bool VolumeDiffer::sync() {
  note("sync");
  const Status synced = world_.volume().sync();
  if (!synced) return expect_faults_ || differ("sync: " + synced.error().message());
  states_.assign(1, {model_, inodes_, orphans_});
  return true;
}

bool VolumeDiffer::recover_since(std::size_t oldest, bool with_partial) {
  note("recover");
  const Status started = world_.start();
  if (!started) return differ("start after a crash: " + started.error().message());
  if (const std::string broken = world_.broken_invariant(); !broken.empty()) {
    return differ("invariant after a crash: " + broken);
  }
  const auto image = sim::image_of(world_.volume());
  if (!image) return differ("walk after a crash: " + image.error().message());
  const VolumeUsage usage = world_.volume().usage();
  std::string newest;
  std::vector<State> allowed(states_.begin() + static_cast<std::ptrdiff_t>(oldest), states_.end());
  if (with_partial) allowed.insert(allowed.begin(), partial_.begin(), partial_.end());
  for (auto state = allowed.rbegin(); state != allowed.rend(); ++state) {
    std::string difference =
        sim::first_difference(state->model.image(), *image, sim::CompareTimes::kYes);
    const VolumeUsage expected = state->model.usage();
    // What a truncation still has to free is freed by forget_orphans(), and compared after it.
    if (difference.empty() && !was_on_shreds_ &&
        (expected.used_bytes != usage.used_bytes || expected.inodes != usage.inodes)) {
      difference = "usage";
    }
    if (difference.empty()) {
      State found = std::move(*state);
      model_ = std::move(found.model);
      inodes_ = std::move(found.inodes);
      orphans_ = std::move(found.orphans);
      return forget_orphans();
    }
    if (newest.empty()) newest = difference;
  }
  return differ(
      fmt::format("none of {} states that it may be; the newest: {}", allowed.size(), newest));
}

// --- Operations.

bool VolumeDiffer::step() {
  return step_with([this] { return do_step(); });
}

bool VolumeDiffer::step_on_shreds(ShredStep kind) {
  if (shreds_.model == 0 || !inodes_.contains(shreds_.model)) return step();
  return step_with([&] { return do_step_on_shreds(kind); });
}

template <class Operation>
bool VolumeDiffer::step_with(const Operation& operation) {
  State before{model_, inodes_, orphans_};
  faulted_ = false;
  partial_.clear();
  was_on_shreds_ = false;
  const bool same = operation();
  states_.push_back({model_, inodes_, orphans_});
  if (same || !faulted_) return same;
  ++faults_;
  history_.back() += " (fault: " + difference_ + ")";
  difference_.clear();
  // What failed has changed nothing.
  model_ = before.model;
  inodes_ = before.inodes;
  orphans_ = before.orphans;
  states_.push_back(std::move(before));
  return true;
}

bool VolumeDiffer::shred(std::size_t extents) {
  note(fmt::format("shred into {}", extents));
  world_.clock().advance(Duration(1));
  model_.set_time(time_of(world_.clock()));
  const Caller caller;
  const std::string name = "shreds";
  Volume& volume = world_.volume();
  const auto made = volume.make_node(kRootInode, name, S_IFREG | 0644, 0, caller);
  const auto modelled = model_.make_node(sim::ModelFs::kRoot, name, S_IFREG | 0644, 0, caller);
  if (!add(made, modelled)) return false;
  if (!made) return true;  // There is one already.
  shreds_ = {.model = *modelled, .real = made->ino};
  const Buffer byte(1, std::byte{'x'});
  // Every other byte, so that no two are one extent.
  for (std::size_t i = 0; i < extents; ++i) {
    if (!volume.write(made->ino, 2 * i, byte, caller)) return differ("shredding");
    if (!model_.write(*modelled, 2 * i, byte, caller)) return differ("shredding the model");
  }
  return sync();
}

bool VolumeDiffer::sweep_shreds() {
  if (shreds_.model == 0 || !inodes_.contains(shreds_.model)) return true;
  note("sweep the shreds");
  world_.clock().advance(Duration(1));
  model_.set_time(time_of(world_.clock()));
  const AttributeChange change{.size = 0};
  if (!same_outcome(world_.volume().set_attributes(shreds_.real, change, Caller{}),
                    model_.set_attributes(shreds_.model, change, Caller{}))) {
    return false;
  }
  shreds_ = {};
  return sync();
}

// Where one record ends and the next begins: every so many extents, each a byte and the hole
// behind.
void VolumeDiffer::add_partial_states(bool is_punch, std::uint64_t size) {
  const std::uint64_t record = 2 * (is_punch ? kExtentsPerRecordMax : kExtentsPerWriteMax);
  for (std::uint64_t end = record; end < size; end += record) {
    State state{model_, inodes_, orphans_};
    const Status done =
        is_punch ? state.model.allocate(shreds_.model, AllocateMode::kPunchHole, 0, end, Caller{})
                 : state.model.write(shreds_.model, 0, Buffer(end, std::byte{'y'}), Caller{});
    if (done) partial_.push_back(std::move(state));
  }
}

// A change of many extents: several records, so that a crash in between must be undone or finished.
bool VolumeDiffer::do_step_on_shreds(ShredStep kind) {
  const Both at = shreds_;
  was_on_shreds_ = true;
  const std::uint64_t size = (*model_.node(at.model))->content.size();
  const Caller caller;
  Volume& volume = world_.volume();
  switch (kind == ShredStep::kOverwrite ? 2 : below(3) * 3 / 2) {
    case 0: {
      note("shreds: truncate");
      AttributeChange change;
      change.size = below(10);
      return same_outcome(volume.set_attributes(at.real, change, caller),
                          model_.set_attributes(at.model, change, caller));
    }
    case 1:
      note("shreds: punch");
      add_partial_states(/*is_punch=*/true, size);
      return same_outcome(volume.allocate(at.real, AllocateMode::kPunchHole, 0, size + 1, caller),
                          model_.allocate(at.model, AllocateMode::kPunchHole, 0, size + 1, caller));
    case 2: {
      note("shreds: overwrite");
      add_partial_states(/*is_punch=*/false, size);
      const Buffer bytes(size, std::byte{'y'});
      return same_outcome(volume.write(at.real, 0, bytes, caller),
                          model_.write(at.model, 0, bytes, caller));
    }
    default:
      note("shreds: unlink");
      return same_orphan(volume.unlink(kRootInode, "shreds", caller),
                         model_.unlink(sim::ModelFs::kRoot, "shreds")) &&
             step_forget();
  }
}

bool VolumeDiffer::do_step() {
  world_.clock().advance(Duration(1 + static_cast<std::int64_t>(below(3'000'000'000))));
  model_.set_time(time_of(world_.clock()));
  const std::uint64_t kind = below(100);
  if (kind < 14) return step_create();
  if (kind < 18) return step_link();
  if (kind < 26) return step_remove();
  if (kind < 38) return step_rename();
  if (kind < 42) return step_lookup();
  if (kind < 46) return step_attributes();
  if (kind < 51) return step_size();
  if (kind < 70) return step_write();
  if (kind < 78) return step_read();
  if (kind < 83) return step_allocate();
  if (kind < 89) return step_copy();
  if (kind < 92) return step_seek();
  if (kind < 97) return step_xattr();
  return step_forget();
}

bool VolumeDiffer::step_create() {
  const Both parent = chance(90) ? some_directory() : some_inode();
  const std::string name = some_name();
  const Caller caller = some_caller();
  const auto mode = static_cast<std::uint32_t>(below(010000));
  Volume& volume = world_.volume();
  switch (below(10)) {
    case 0: {
      const std::string target(below(20) == 0 ? 4096 : below(300), 't');
      note(fmt::format("symlink {}/{}", parent.real, name));
      return add(volume.make_symlink(parent.real, name, target, caller),
                 model_.make_symlink(parent.model, name, target, caller));
    }
    case 1: {
      const std::uint32_t type =
          std::array<std::uint32_t, 6>{S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK, S_IFDIR, 0}[below(6)];
      note(fmt::format("mknod {}/{} type {:o}", parent.real, name, type));
      return add(volume.make_node(parent.real, name, type | mode, 0x1234, caller),
                 model_.make_node(parent.model, name, type | mode, 0x1234, caller));
    }
    case 2: {
      note("unnamed");
      const auto real = volume.make_unnamed(mode, caller);
      const auto model = model_.make_unnamed(mode, caller);
      if (model) orphans_.push_back(*model);
      return add(real, model);
    }
    case 3:
    case 4:
    case 5:
      note(fmt::format("mkdir {}/{} mode {:o}", parent.real, name, mode));
      return add(volume.make_directory(parent.real, name, mode, caller),
                 model_.make_directory(parent.model, name, mode, caller));
    default:
      note(fmt::format("create {}/{} mode {:o}", parent.real, name, mode));
      return add(volume.make_node(parent.real, name, S_IFREG | mode, 0, caller),
                 model_.make_node(parent.model, name, S_IFREG | mode, 0, caller));
  }
}

bool VolumeDiffer::step_link() {
  const Both ino = chance(80) ? some_file() : some_inode();
  const Both parent = chance(90) ? some_directory() : some_inode();
  const std::string name = some_name();
  note(fmt::format("link {} as {}/{}", ino.real, parent.real, name));
  const auto real = world_.volume().link(ino.real, parent.real, name, some_caller());
  const Status model = model_.link(ino.model, parent.model, name);
  if (!same_outcome(real, model)) return false;
  if (!model) return true;
  std::erase(orphans_, ino.model);
  return same_attributes(ino);
}

bool VolumeDiffer::step_remove() {
  const Both parent = chance(95) ? some_directory() : some_inode();
  const std::string name = some_name();
  const Caller caller = some_caller();
  if (chance(50)) {
    note(fmt::format("unlink {}/{}", parent.real, name));
    return same_orphan(world_.volume().unlink(parent.real, name, caller),
                       model_.unlink(parent.model, name));
  }
  note(fmt::format("rmdir {}/{}", parent.real, name));
  return same_orphan(world_.volume().remove_directory(parent.real, name, caller),
                     model_.remove_directory(parent.model, name));
}

bool VolumeDiffer::step_rename() {
  const Both from = chance(95) ? some_directory() : some_inode();
  const Both to = chance(30) ? from : (chance(95) ? some_directory() : some_inode());
  const std::string name = some_name();
  const std::string new_name = some_name();
  const auto mode = std::array{RenameMode::kReplace, RenameMode::kReplace, RenameMode::kNoReplace,
                               RenameMode::kExchange}[below(4)];
  note(fmt::format("rename {}/{} to {}/{} mode {}", from.real, name, to.real, new_name,
                   static_cast<int>(mode)));
  return same_orphan(
      world_.volume().rename(from.real, name, to.real, new_name, mode, some_caller()),
      model_.rename(from.model, name, to.model, new_name, mode));
}

bool VolumeDiffer::step_lookup() {
  const Both parent = chance(90) ? some_directory() : some_inode();
  const std::string name = chance(20) ? ".." : some_name();
  note(fmt::format("lookup {}/{}", parent.real, name));
  const auto real = world_.volume().lookup(parent.real, name);
  const auto model = model_.lookup(parent.model, name);
  if (name == ".." && (*model_.node(parent.model))->nlink == 0) return true;
  if (!same_outcome(real, model)) return false;
  return !real || inodes_.at(*model) == real->ino || differ("lookup finds another inode");
}

bool VolumeDiffer::step_attributes() {
  const Both ino = some_inode();
  AttributeChange change;
  if (chance(50)) change.mode = static_cast<std::uint32_t>(below(010000));
  if (chance(30)) change.uid = static_cast<std::uint32_t>(below(1ull << 32));
  if (chance(30)) change.gid = static_cast<std::uint32_t>(below(1ull << 32));
  if (chance(30)) {
    change.atime = Timespec{.seconds = static_cast<std::int64_t>(below(1ull << 34)) - (1ll << 33),
                            .nanoseconds = static_cast<std::uint32_t>(below(1'000'000'000))};
  }
  if (chance(30)) change.mtime = Timespec{.seconds = 5'000'000'000, .nanoseconds = 1};
  if (chance(10)) change.ctime = Timespec{.seconds = -1, .nanoseconds = 999'999'999};
  note(fmt::format("setattr {}", ino.real));
  const Caller caller = some_caller();
  const auto real = world_.volume().set_attributes(ino.real, change, caller);
  return same_outcome(real, model_.set_attributes(ino.model, change, caller)) &&
         same_attributes(ino);
}

bool VolumeDiffer::step_size() {
  const Both ino = some_file();
  const AttributeChange change{.size = chance(3) ? (1ull << 63) : some_offset()};
  const Caller caller = some_caller();
  note(fmt::format("truncate {} to {}", ino.real, *change.size));
  const auto real = world_.volume().set_attributes(ino.real, change, caller);
  return same_outcome(real, model_.set_attributes(ino.model, change, caller)) &&
         same_attributes(ino);
}

bool VolumeDiffer::step_write() {
  const Both ino = some_file();
  std::uint64_t offset = some_offset();
  // Appends, as most writes are.
  if (chance(30)) offset = (*model_.node(ino.model))->content.size();
  const Buffer bytes = some_bytes(some_length());
  const Caller caller = some_caller();
  note(fmt::format("write {} at {} length {}", ino.real, offset, bytes.size()));
  return same_outcome(world_.volume().write(ino.real, offset, bytes, caller),
                      model_.write(ino.model, offset, bytes, caller)) &&
         same_attributes(ino);
}

bool VolumeDiffer::step_read() {
  const Both ino = some_file();
  const std::uint64_t offset = some_offset();
  Buffer out(some_length(), std::byte{0xee});
  note(fmt::format("read {} at {} length {}", ino.real, offset, out.size()));
  const auto real = world_.volume().read(ino.real, offset, out);
  const auto model = model_.read(ino.model, offset, out.size());
  if (!same_outcome(real, model)) return false;
  if (!real) return true;
  out.resize(*real);
  return out == *model || differ("read gives other bytes");
}

bool VolumeDiffer::step_allocate() {
  const Both ino = some_file();
  const auto mode = static_cast<AllocateMode>(below(5));
  const std::uint64_t offset = some_offset();
  const std::uint64_t length = some_length();
  const Caller caller = some_caller();
  note(fmt::format("allocate {} mode {} at {} length {}", ino.real, static_cast<int>(mode), offset,
                   length));
  return same_outcome(world_.volume().allocate(ino.real, mode, offset, length, caller),
                      model_.allocate(ino.model, mode, offset, length, caller)) &&
         same_attributes(ino);
}

bool VolumeDiffer::step_copy() {
  const Both from = some_file();
  const Both to = chance(30) ? from : some_file();
  const std::uint64_t from_offset = some_offset();
  const std::uint64_t to_offset = some_offset();
  const std::uint64_t length = some_length();
  const Caller caller = some_caller();
  note(fmt::format("copy {} at {} to {} at {} length {}", from.real, from_offset, to.real,
                   to_offset, length));
  const auto real =
      world_.volume().copy_range(from.real, from_offset, to.real, to_offset, length, caller);
  const auto model =
      model_.copy_range(from.model, from_offset, to.model, to_offset, length, caller);
  if (!same_outcome(real, model)) return false;
  if (real && *real != *model) return differ("copy of another length");
  return same_attributes(to);
}

bool VolumeDiffer::step_seek() {
  const Both ino = some_file();
  const std::uint64_t offset = some_offset();
  const auto target = chance(50) ? SeekTarget::kData : SeekTarget::kHole;
  note(fmt::format("seek {} at {} kind {}", ino.real, offset, static_cast<int>(target)));
  const auto real = world_.volume().seek(ino.real, offset, target);
  const auto model = model_.seek(ino.model, offset, target);
  if (!same_outcome(real, model)) return false;
  return !real || *real == *model || differ(fmt::format("seek: {} not {}", *real, *model));
}

bool VolumeDiffer::step_xattr() {
  const Both ino = some_inode();
  const std::string name =
      std::array<std::string, 4>{"user.a", "user.b", "security.capability", "trusted.c"}[below(4)];
  const Caller caller = some_caller();
  note(fmt::format("xattr {} {}", ino.real, name));
  if (chance(60)) {
    const Buffer value = some_bytes(below(100));
    const auto mode = static_cast<XattrMode>(below(3));
    return same_outcome(world_.volume().set_xattr(ino.real, name, value, mode, caller),
                        model_.set_xattr(ino.model, name, value, mode)) &&
           same_attributes(ino);
  }
  if (chance(50)) {
    return same_outcome(world_.volume().remove_xattr(ino.real, name, caller),
                        model_.remove_xattr(ino.model, name)) &&
           same_attributes(ino);
  }
  const auto real = world_.volume().get_xattr(ino.real, name);
  const auto model = model_.get_xattr(ino.model, name);
  if (!same_outcome(real, model)) return false;
  return !real || *real == *model || differ("value of an attribute");
}

bool VolumeDiffer::step_forget() {
  if (orphans_.empty()) return true;
  const ModelIno model = orphans_[below(orphans_.size())];
  note(fmt::format("forget {}", inodes_.at(model)));
  const Status real = world_.volume().forget_orphan(inodes_.at(model));
  if (!same_outcome(real, Status{})) return false;
  // Directories that are gone still know their parent: ".." of an orphan is nobody's business.
  model_.forget_orphan(model);
  inodes_.erase(model);
  std::erase(orphans_, model);
  return true;
}

}  // namespace qsfs::fs
