#include "fs/log/segment_files.h"

#include <algorithm>
#include <array>
#include <thread>

#include "base/check.h"
#include "base/log.h"
#include "fs/log/segment_names.h"
#include "fs/log/sums_format.h"

namespace qsfs::fs {
namespace {

std::uint64_t round_up_to_block(std::uint64_t len) {
  return (len + kSumBlock - 1) / kSumBlock * kSumBlock;
}

// What the data files of a volume occupy together.
using UsedBytes = std::atomic<std::uint64_t>;

// Counts the writers that are inside a block which others may write to or read from, too. Blocks
// share counters: a false neighbour costs a reader one more try.
class PartialWriters {
 public:
  struct Mark {
    std::uint32_t finished = 0;
  };

  void enter(std::uint32_t block) { slot(block).started.fetch_add(1); }
  void leave(std::uint32_t block) {
    slot(block).finished.fetch_add(1);
    slot(block).finished.notify_all();
  }
  [[nodiscard]] Mark mark(std::uint32_t block) { return {slot(block).finished.load()}; }

  // Whether anybody was inside at any time since `mark`; if so, returns after a writer has left.
  bool wait_if_disturbed(std::uint32_t block, Mark mark) {
    Slot& counters = slot(block);
    const std::uint32_t finished = counters.finished.load();
    if (finished != mark.finished) return true;
    if (counters.started.load() == finished) return false;
    counters.finished.wait(finished);
    return true;
  }

 private:
  struct Slot {
    std::atomic<std::uint32_t> started{0};
    std::atomic<std::uint32_t> finished{0};
  };
  static constexpr std::size_t kSlots = 64;

  Slot& slot(std::uint32_t block) { return slots_[block % kSlots]; }

  std::array<Slot, kSlots> slots_;
};

class SegmentFileImpl final : public SegmentFile {
 public:
  // `used` is shared with the SegmentFiles, which may go before the last holder of a file does.
  SegmentFileImpl(Disk& disk, std::string directory, SegmentId id, std::unique_ptr<DiskFile> file,
                  std::uint64_t size_max, std::shared_ptr<UsedBytes> used)
      : disk_(disk),
        directory_(std::move(directory)),
        id_(id),
        file_(std::move(file)),
        size_max_(size_max),
        used_(std::move(used)),
        sums_(size_max) {}

  SegmentId id() const override { return id_; }

  Status write(std::uint32_t position, Bytes payload) override {
    if (payload.empty()) return {};
    if (position > size_max_ || payload.size() > size_max_ - position) {
      return fail(Errc::kInvalidArgument, path() + ": write beyond the segment");
    }
    const std::uint64_t end = position + payload.size();
    const auto first = position / kSumBlock;
    const auto last = static_cast<std::uint32_t>((end - 1) / kSumBlock);
    const bool shares_first = position % kSumBlock != 0 || end < (first + 1ull) * kSumBlock;
    const bool shares_last = last != first && end % kSumBlock != 0;
    if (shares_first) writers_.enter(first);
    if (shares_last) writers_.enter(last);
    const Status written = write_and_sum(position, payload);
    if (shares_first) writers_.leave(first);
    if (shares_last) writers_.leave(last);
    charge_up_to(round_up_to_block(end));
    return written;
  }

  Status read(std::uint32_t position, MutableBytes out) override {
    if (position > size_max_ || out.size() > size_max_ - position) {
      return fail(Errc::kCorruption, path() + ": read beyond the segment");
    }
    std::uint32_t block = position / kSumBlock;
    if (const std::uint32_t skip = position % kSumBlock; skip != 0 && !out.empty()) {
      const std::size_t len = std::min<std::size_t>(out.size(), kSumBlock - skip);
      QSFS_TRY(read_part(block, skip, out.first(len)));
      out = out.subspan(len);
      ++block;
    }
    if (const std::size_t whole = out.size() / kSumBlock * kSumBlock; whole > 0) {
      QSFS_TRY(read_whole_blocks(block, out.first(whole)));
      out = out.subspan(whole);
      block += static_cast<std::uint32_t>(whole / kSumBlock);
    }
    if (!out.empty()) return read_part(block, 0, out);
    return {};
  }

  void will_need(std::uint32_t position, std::uint64_t length) override {
    file_->will_need(position, length);
  }

  Status datasync() override {
    if (sync_failed_) return fail(Errc::kIo, path() + ": an earlier sync has failed");
    const Status synced = file_->datasync();
    if (!synced) sync_failed_ = true;
    return synced;
  }

  Status seal(std::uint64_t data_len) override {
    if (data_len > size_max_) {
      return fail(Errc::kInvalidArgument, path() + ": sealed beyond the segment");
    }
    QSFS_ASSIGN(const std::uint64_t size, file_->size());
    if (size != data_len) QSFS_TRY(file_->truncate(data_len));
    // The sums vouch for the data: they must never be on the disk before it is.
    QSFS_TRY(datasync());
    QSFS_TRY(write_file_atomically(disk_, segment_path(directory_, id_, kSumsSuffix),
                                   sums_.encode(data_len)));
    QSFS_ASSIGN(const std::uint64_t allocated, file_->allocated_bytes());
    charge(allocated);
    sealed_ = true;
    return {};
  }

  void distrust(std::uint32_t position, std::uint32_t length) override {
    for (std::uint64_t block = position / kSumBlock;
         block * kSumBlock < std::uint64_t{position} + length && block < sums_.block_count();
         ++block) {
      const auto index = static_cast<std::uint32_t>(block);
      std::array<std::byte, kSumBlock> content{};
      // The sum of anything but what is there; what cannot be read fails without our help.
      if (read_raw(index, content) && sums_.matches(index, content)) {
        sums_.reset(index, ~sums_.value(index));
      }
    }
  }

  Result<std::uint64_t> allocated_bytes() override { return file_->allocated_bytes(); }

  // Takes the sums of the file as it is. What is behind `data_len` does not count, and goes when
  // the file is sealed. Not for shared use yet.
  Status adopt(std::uint64_t data_len) {
    constexpr std::uint64_t kPiece = 256 * kKiB;
    Buffer piece(std::min(kPiece, round_up_to_block(data_len)));
    for (std::uint64_t at = 0; at < data_len; at += kPiece) {
      const MutableBytes in = MutableBytes(piece).first(std::min(kPiece, data_len - at));
      QSFS_ASSIGN(const std::size_t got, file_->pread(at, in));
      sums_.add(at, in.first(got));
    }
    return charge_allocated();
  }

  // Takes the stored sums. Not for shared use yet.
  Status load(Bytes encoded) {
    QSFS_TRY(sums_.decode(encoded));
    sealed_ = true;
    return charge_allocated();
  }

  // Stops counting towards used_bytes(): the file is removed.
  void uncharge() {
    removed_ = true;
    charge(0);
  }

  [[nodiscard]] bool sealed() const { return sealed_; }
  [[nodiscard]] std::uint64_t charged() const { return charged_; }
  [[nodiscard]] std::string path() const { return segment_path(directory_, id_, kDataSuffix); }

 private:
  Status write_and_sum(std::uint32_t position, Bytes payload) {
    Status written = file_->pwrite(position, payload);
    if (written) {
      sums_.add(position, payload);
      return written;
    }
    // A part may be there. Nobody will ever refer to it, but it shares blocks with what others
    // refer to: the sums take what is there.
    Buffer actual(payload.size());
    const auto got = file_->pread(position, actual);
    if (got) sums_.add(position, Bytes(actual).first(*got));
    return written;
  }

  // Fills `content` with a block of the file, zeros past its end.
  Status read_raw(std::uint32_t block, MutableBytes content) {
    const std::uint64_t at = std::uint64_t{block} * kSumBlock;
    const std::uint64_t len = std::min<std::uint64_t>(content.size(), size_max_ - at);
    QSFS_ASSIGN(const std::size_t got, file_->pread(at, content.first(len)));
    std::ranges::fill(content.subspan(got), std::byte{0});
    return {};
  }

  // Reads until the block matches or has stood still while it did not. Ends: a new try needs a
  // writer that left in between, and a segment has room for finitely many.
  Status read_verified(std::uint32_t block, MutableBytes content) {
    while (true) {
      const PartialWriters::Mark mark = writers_.mark(block);
      QSFS_TRY(read_raw(block, content));
      if (sums_.matches(block, content)) return {};
      if (!writers_.wait_if_disturbed(block, mark)) {
        return fail(Errc::kCorruption,
                    path() + ": block " + std::to_string(block) + " does not match its checksum");
      }
    }
  }

  Status read_part(std::uint32_t block, std::uint32_t skip, MutableBytes out) {
    std::array<std::byte, kSumBlock> content;
    QSFS_TRY(read_verified(block, content));
    std::copy_n(content.begin() + skip, out.size(), out.begin());
    return {};
  }

  // Straight into `out`, in one read; only a block that does not match is looked at again.
  Status read_whole_blocks(std::uint32_t block, MutableBytes out) {
    QSFS_ASSIGN(const std::size_t got, file_->pread(std::uint64_t{block} * kSumBlock, out));
    std::ranges::fill(out.subspan(got), std::byte{0});
    for (; !out.empty(); out = out.subspan(kSumBlock), ++block) {
      const MutableBytes content = out.first(kSumBlock);
      if (!sums_.matches(block, content)) QSFS_TRY(read_verified(block, content));
    }
    return {};
  }

  Status charge_allocated() {
    QSFS_ASSIGN(const std::uint64_t allocated, file_->allocated_bytes());
    charge(allocated);
    return {};
  }

  void charge(std::uint64_t bytes) {
    const std::uint64_t before = charged_.exchange(bytes);
    *used_ += bytes - before;  // Wraps to a subtraction when it shrinks.
  }
  void charge_up_to(std::uint64_t bytes) {
    std::uint64_t before = charged_.load();
    while (before < bytes && !removed_) {
      if (charged_.compare_exchange_weak(before, bytes)) {
        *used_ += bytes - before;
        return;
      }
    }
  }

  Disk& disk_;
  const std::string directory_;
  const SegmentId id_;
  const std::unique_ptr<DiskFile> file_;
  const std::uint64_t size_max_;
  const std::shared_ptr<UsedBytes> used_;

  BlockSums sums_;
  PartialWriters writers_;
  std::atomic<std::uint64_t> charged_{0};
  std::atomic<bool> sealed_{false};
  std::atomic<bool> removed_{false};
  std::atomic<bool> sync_failed_{false};
};

class SegmentFilesImpl final : public SegmentFiles {
 public:
  using FilePtr = std::shared_ptr<SegmentFileImpl>;
  SegmentFilesImpl(Disk& disk, std::string directory, std::uint64_t size_max)
      : disk_(disk), directory_(std::move(directory)), size_max_(size_max) {}

  // Counts what is there.
  Status count_files() {
    QSFS_ASSIGN(const std::vector<SegmentId> ids, list());
    const MutexLock lock(mu_);
    for (const SegmentId id : ids) {
      QSFS_ASSIGN(const auto file, disk_.open(data_path(id), OpenMode::kRead));
      QSFS_ASSIGN(const std::uint64_t allocated, file->allocated_bytes());
      closed_bytes_[id] = allocated;
      *used_ += allocated;
    }
    return {};
  }

  Result<std::shared_ptr<SegmentFile>> create(SegmentId id) override {
    QSFS_ASSIGN(auto file, disk_.open(data_path(id), OpenMode::kCreateNew));
    auto segment = make_file(id, std::move(file), size_max_);
    const MutexLock lock(mu_);
    insert_locked(segment);
    return std::shared_ptr<SegmentFile>(std::move(segment));
  }

  Result<std::shared_ptr<SegmentFile>> find(SegmentId id) override {
    while (true) {
      QSFS_ASSIGN(Found found, try_find(id));
      // Each further turn needs a removal to have ended meanwhile.
      if (!found.is_stale) return std::shared_ptr<SegmentFile>(std::move(found.file));
    }
  }

  struct Found {
    FilePtr file;           // Null: there is none.
    bool is_stale = false;  // Something was removed meanwhile, perhaps this: look again.
  };
  Result<Found> try_find(SegmentId id) {
    std::uint64_t removals = 0;
    {
      const MutexLock lock(mu_);
      removals = removals_;
    }
    if (auto open = lookup(id)) return Found{.file = std::move(open)};
    auto file = disk_.open(data_path(id), OpenMode::kReadWrite);
    if (!file) {
      if (file.error().code == Errc::kNotFound) return Found{};
      return std::unexpected(std::move(file).error());
    }
    auto encoded = read_whole_file(disk_, sums_path(id), sums::kFileLenMax);
    if (!encoded) {
      if (encoded.error().code != Errc::kNotFound) return std::unexpected(encoded.error());
      const MutexLock lock(mu_);
      if (removals_ != removals) return Found{.is_stale = true};
      return fail(Errc::kCorruption, data_path(id) + " has no sums");
    }
    const auto data_len = sums::parse_header(*encoded);
    if (!data_len) return with_context(data_len.error(), sums_path(id));
    auto segment = make_file(id, std::move(*file), *data_len);
    return share(std::move(segment), removals,
                 [&](SegmentFileImpl& made) { return made.load(*encoded); });
  }

  Result<std::shared_ptr<SegmentFile>> adopt_unsealed(SegmentId id,
                                                      std::uint64_t data_len) override {
    if (data_len > sums::kDataLenMax) {
      return fail(Errc::kCorruption, data_path(id) + ": too long for a segment");
    }
    QSFS_ASSIGN(auto file, disk_.open(data_path(id), OpenMode::kReadWrite));
    auto segment = make_file(id, std::move(file), data_len);
    QSFS_ASSIGN(auto shared, share(std::move(segment), std::nullopt,
                                   [&](SegmentFileImpl& made) { return made.adopt(data_len); }));
    return std::shared_ptr<SegmentFile>(std::move(shared.file));
  }

  Status remove(SegmentId id) override {
    forget(id);
    // The data first: sums without data are harmless, data without sums are an alarm.
    Status removed = remove_if_there(data_path(id));
    if (removed) removed = remove_if_there(sums_path(id));
    // A find() may have opened the file before it went, and have shared it by now; one that has not
    // yet sees that something was removed, and looks again.
    forget(id);
    return removed;
  }

  Result<std::vector<SegmentId>> list() override {
    QSFS_ASSIGN(const std::vector<std::string> names, disk_.list(directory_));
    std::vector<SegmentId> ids;
    for (const std::string& name : names) {
      if (const auto id = parse_segment_name(name, kDataSuffix)) ids.push_back(*id);
    }
    std::ranges::sort(ids);
    return ids;
  }

  Result<std::uint64_t> local_bytes(SegmentId id) override {
    const MutexLock lock(mu_);
    if (const auto found = open_.find(id); found != open_.end()) {
      return found->second.file->charged();
    }
    const auto closed = closed_bytes_.find(id);
    return closed == closed_bytes_.end() ? 0 : closed->second;
  }

  std::uint64_t used_bytes() const override { return *used_; }

 private:
  struct Open {
    FilePtr file;
    std::uint64_t last_use = 0;
  };

  [[nodiscard]] std::string data_path(SegmentId id) const {
    return segment_path(directory_, id, kDataSuffix);
  }
  [[nodiscard]] std::string sums_path(SegmentId id) const {
    return segment_path(directory_, id, kSumsSuffix);
  }

  FilePtr make_file(SegmentId id, std::unique_ptr<DiskFile> file, std::uint64_t size_max) {
    return std::make_shared<SegmentFileImpl>(disk_, directory_, id, std::move(file), size_max,
                                             used_);
  }

  FilePtr lookup(SegmentId id) QSFS_EXCLUDES(mu_) {
    const MutexLock lock(mu_);
    const auto found = open_.find(id);
    if (found == open_.end()) return nullptr;
    found->second.last_use = ++uses_;
    return found->second.file;
  }

  // Completes a file with `load` (without the lock: it reads) and gives it to all; when another
  // thread was faster, its file. Stale: something was removed since there had been `removals`.
  template <class Load>
  Result<Found> share(FilePtr segment, std::optional<std::uint64_t> removals, const Load& load)
      QSFS_EXCLUDES(mu_) {
    if (const Status loaded = load(*segment); !loaded) {
      segment->uncharge();
      return std::unexpected(loaded.error());
    }
    const MutexLock lock(mu_);
    if (removals && *removals != removals_) {
      segment->uncharge();
      return Found{.is_stale = true};
    }
    if (const auto found = open_.find(segment->id()); found != open_.end()) {
      segment->uncharge();
      return Found{.file = found->second.file};
    }
    uncharge_closed_locked(segment->id());
    insert_locked(segment);
    return Found{.file = std::move(segment)};
  }

  void forget(SegmentId id) QSFS_EXCLUDES(mu_) {
    const MutexLock lock(mu_);
    ++removals_;
    if (const auto found = open_.find(id); found != open_.end()) {
      found->second.file->uncharge();
      open_.erase(found);
    }
    uncharge_closed_locked(id);
  }

  void insert_locked(const FilePtr& segment) QSFS_REQUIRES(mu_) {
    open_[segment->id()] = Open{.file = segment, .last_use = ++uses_};
    if (open_.size() <= kOpenFilesMax) return;
    // Only what can be opened again: an unsealed file's sums are nowhere else.
    auto oldest = open_.end();
    for (auto at = open_.begin(); at != open_.end(); ++at) {
      if (!at->second.file->sealed() || at->second.file == segment) continue;
      if (oldest == open_.end() || at->second.last_use < oldest->second.last_use) oldest = at;
    }
    if (oldest == open_.end()) return;
    // Holders may go on reading; what it occupies is counted here from now on.
    const SegmentId id = oldest->first;
    const auto allocated = oldest->second.file->allocated_bytes();
    oldest->second.file->uncharge();
    open_.erase(oldest);
    closed_bytes_[id] = allocated ? *allocated : 0;
    *used_ += closed_bytes_[id];
  }

  void uncharge_closed_locked(SegmentId id) QSFS_REQUIRES(mu_) {
    const auto found = closed_bytes_.find(id);
    if (found == closed_bytes_.end()) return;
    *used_ -= found->second;
    closed_bytes_.erase(found);
  }

  Status remove_if_there(const std::string& path) {
    const Status removed = disk_.remove(path);
    if (!removed && removed.error().code != Errc::kNotFound) return removed;
    return {};
  }

  Disk& disk_;
  const std::string directory_;
  const std::uint64_t size_max_;
  const std::shared_ptr<UsedBytes> used_ = std::make_shared<UsedBytes>(0);

  Mutex mu_;
  std::map<SegmentId, Open> open_ QSFS_GUARDED_BY(mu_);
  // What the files that are not open occupy.
  std::map<SegmentId, std::uint64_t> closed_bytes_ QSFS_GUARDED_BY(mu_);
  std::uint64_t uses_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t removals_ QSFS_GUARDED_BY(mu_) = 0;
};

}  // namespace

Result<std::unique_ptr<SegmentFiles>> SegmentFiles::open(Disk& disk, std::string directory,
                                                         std::uint64_t size_max) {
  if (size_max == 0 || size_max > sums::kDataLenMax) {
    return fail(Errc::kInvalidArgument,
                "segment size " + std::to_string(size_max) + "; it must be below 4 GiB");
  }
  auto files = std::make_unique<SegmentFilesImpl>(disk, std::move(directory), size_max);
  QSFS_TRY(files->count_files());
  return std::unique_ptr<SegmentFiles>(std::move(files));
}

}  // namespace qsfs::fs
