// ReadAhead: recognises sequential readers and says what to fetch before they ask.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/mutex.h"
#include "fs/meta/keys.h"

namespace qsfs::fs {

// A small table of the places where readers stopped. Nothing is kept per open file. Thread-safe.
class ReadAhead {
 public:
  static constexpr std::size_t kStreamsMax = 256;
  static constexpr std::uint64_t kWindowFirst = 1 * kMiB;

  // `window_max` 0: never.
  explicit ReadAhead(std::uint64_t window_max) : window_max_(window_max) {}

  // A range of the file; empty when begin == end.
  struct Range {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };
  // A read of [offset, offset + length) begins. Returns what should be fetched now: nothing until
  // two reads continued each other (three when they are small: random ones do so by chance), then
  // windows that double up to the limit, a new one each time half of the last is used up.
  Range note_read(InodeNumber ino, std::uint64_t offset, std::uint64_t length) QSFS_EXCLUDES(mu_);

 private:
  static constexpr std::size_t kWays = 4;
  struct Stream {
    InodeNumber ino = 0;
    std::uint64_t next = 0;     // Where the last read ended.
    std::uint64_t fetched = 0;  // Asked for up to here.
    std::uint64_t window = 0;   // 0: not known to be sequential yet.
    std::uint64_t used_at = 0;
    unsigned continued = 0;  // Reads that continued this stream.
  };

  static bool is_next(const Stream& stream, InodeNumber ino, std::uint64_t offset,
                      std::uint64_t length);

  const std::uint64_t window_max_;
  Mutex mu_;
  std::array<Stream, kStreamsMax> streams_ QSFS_GUARDED_BY(mu_);
  std::uint64_t tick_ QSFS_GUARDED_BY(mu_) = 0;
};

}  // namespace qsfs::fs
