#include "zdb/entry_walker.h"

#include <algorithm>

#include "base/crc32c.h"

namespace qsfs::zdb {
namespace {

constexpr std::size_t kWindowBytes = 1 * kMiB;
constexpr std::size_t kEntryHeadLenMax = kEntryHeaderLen + kKeyLenMax;

// A sliding buffer over the file.
class Window {
 public:
  Window(DiskFile& file, std::uint64_t size) : file_(file), size_(size) {}

  // Up to `len` bytes at `offset`; fewer at the end of the file. A view until the next call.
  Result<Bytes> at(std::uint64_t offset, std::size_t len) {
    if (offset >= size_) return Bytes();
    len = static_cast<std::size_t>(std::min<std::uint64_t>(len, size_ - offset));
    if (offset < begin_ || offset + len > begin_ + held_) QSFS_TRY(fill(offset, len));
    const std::size_t skip = static_cast<std::size_t>(offset - begin_);
    return Bytes(buffer_)
        .first(held_)
        .subspan(std::min(skip, held_))
        .first(std::min(len, held_ - std::min(skip, held_)));
  }

 private:
  Status fill(std::uint64_t offset, std::size_t len) {
    const std::uint64_t want = std::min<std::uint64_t>(std::max(len, kWindowBytes), size_ - offset);
    if (buffer_.size() < want) buffer_.resize(static_cast<std::size_t>(want));
    held_ = 0;
    QSFS_ASSIGN(held_,
                file_.pread(offset, MutableBytes(buffer_).first(static_cast<std::size_t>(want))));
    begin_ = offset;
    return {};
  }

  DiskFile& file_;
  const std::uint64_t size_;
  Buffer buffer_;
  std::uint64_t begin_ = 0;
  std::size_t held_ = 0;
};

class Walker {
 public:
  Walker(DiskFile& file, const WalkOptions& options)
      : options_(options), window_(file, options.size) {}

  Status run(const std::function<void(const WalkItem&)>& visit) {
    std::uint64_t at = options_.begin;
    while (at < options_.size) {
      QSFS_ASSIGN(std::optional<EntryHeader> header, header_at(at));
      if (!header) {
        QSFS_ASSIGN(const std::uint64_t next, find_entry(at + kEntryAlign));
        visit({.begin = at, .end = next, .header = std::nullopt, .key = {}, .value_good = false});
        at = next;
        continue;
      }
      WalkItem item{.begin = at, .end = at + header->total_len(), .header = header, .key = key_};
      QSFS_ASSIGN(item.value_good, value_is_good(at, *header));
      visit(item);
      at = item.end;
    }
    return {};
  }

 private:
  Result<std::optional<EntryHeader>> header_at(std::uint64_t at) {
    QSFS_ASSIGN(const Bytes head, window_.at(at, kEntryHeadLenMax));
    const auto header = decode_entry_header(head, {.salt = options_.salt, .offset = at});
    if (header) {
      const Bytes key = head.subspan(kEntryHeaderLen, header->key_len);
      key_.assign(key.begin(), key.end());
    }
    return header;
  }

  Result<bool> value_is_good(std::uint64_t at, const EntryHeader& header) {
    const std::uint64_t value_at = at + kEntryHeaderLen + header.key_len;
    if (header.type == EntryType::kSkip) return true;
    if (value_at + header.value_len > options_.size) return false;
    if (!options_.verify_values) return true;
    QSFS_ASSIGN(const Bytes value, window_.at(value_at, header.value_len));
    return value.size() == header.value_len && crc32c(value) == header.value_crc;
  }

  // The first entry at or after `at`, or the end of the file.
  Result<std::uint64_t> find_entry(std::uint64_t at) {
    while (at < options_.size) {
      QSFS_ASSIGN(const Bytes chunk, window_.at(at, kWindowBytes));
      const std::optional<std::size_t> found = find_entry_magic(chunk);
      if (!found) {
        at += std::max<std::uint64_t>(chunk.size() / kEntryAlign * kEntryAlign, kEntryAlign);
        continue;
      }
      at += *found;
      QSFS_ASSIGN(const std::optional<EntryHeader> header, header_at(at));
      if (header) return at;
      at += kEntryAlign;
    }
    return options_.size;
  }

  const WalkOptions options_;
  Window window_;
  Buffer key_;  // Of the last header: a view into the window would not outlive the next read.
};

}  // namespace

Status walk_entries(DiskFile& file, const WalkOptions& options,
                    const std::function<void(const WalkItem&)>& visit) {
  return Walker(file, options).run(visit);
}

}  // namespace qsfs::zdb
