// Journals that a broken disk, or somebody with access to it, left. The first byte says how the
// rest, the content of 00000001.journal, is treated:
//   bit 0  the checksums and LSNs of header and records are made right first, so that what they
//          protect is reached
//   bit 1  the journal has sums beside it: all of it is known to be durable
//   bit 2  the store has applied the first record
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "fs/log/journal_format.h"
#include "fs/log/log.h"
#include "tests/sim/sim_disk.h"

namespace qsfs::fs {
namespace {

constexpr std::size_t kJournalLenMax = 64 * kKiB;
constexpr SegmentId kSegment{1};
constexpr LogLimits kLimits{
    .segment_data_bytes = 64 * kKiB, .journal_bytes = kJournalLenMax, .stripe_size = 16 * kKiB};

void repair(MutableBytes journal) {
  if (journal.size() < journal::kHeaderLen) return;
  std::ranges::fill(journal.first(32), std::byte{0});
  journal::encode_header(kSegment, journal.first(journal::kHeaderLen));
  journal::store_start({}, journal.first(journal::kHeaderLen));
  std::size_t at = journal::kHeaderLen;
  while (at + journal::kRecordHeaderLen <= journal.size()) {
    const std::size_t rest = journal.size() - at;
    // Lengths that fit the place are likelier to find something than any four bytes.
    std::uint32_t len = load_le<std::uint32_t>(journal.data() + at) & 0x3f8u;
    if (len == 0) return;
    len = static_cast<std::uint32_t>(std::clamp<std::size_t>(len, journal::kRecordHeaderLen, rest));
    len = len / journal::kRecordAlign * journal::kRecordAlign;
    const MutableBytes record = journal.subspan(at, len);
    store_le(record.data(), len);
    store_le(record.data() + 8, Lsn::at(kSegment, static_cast<std::uint32_t>(at)).value);
    store_le(record.data() + 4, crc32c(record.subspan(8), crc32c(record.first(4))));
    at += len;
  }
}

struct Applied {
  std::vector<Lsn> ends;
  bool operator==(const Applied&) const = default;
};

Result<ReplayReport> replay(Disk& disk, Lsn store, Applied& applied) {
  const LogOptions options{.directory = "/log", .limits = kLimits, .background = false};
  QSFS_ASSIGN(const auto files, SegmentFiles::open(disk, "/log", kLimits.segment_data_bytes));
  QSFS_ASSIGN(const Log::Opened opened,
              Log::open(options, disk, system_clock(), *files, store,
                        [&applied](const RecordView& record) -> Status {
                          QSFS_TRY(for_each_mutation(record.mutations,
                                                     [](const Mutation&) { return Status{}; }));
                          QSFS_CHECK(applied.ends.empty() || record.lsn >= applied.ends.back());
                          applied.ends.push_back(record.end);
                          return {};
                        }));
  return opened.report;
}

Status write_file(Disk& disk, const std::string& path, Bytes bytes) {
  QSFS_ASSIGN(const auto file, disk.open(path, OpenMode::kCreate));
  return file->pwrite(0, bytes);
}

void replay_twice(Bytes journal, bool has_sums, bool has_store) {
  sim::SimDisk disk(1);
  QSFS_CHECK(disk.create_directory("/log").has_value());
  QSFS_CHECK(write_file(disk, "/log/00000001.journal", journal).has_value());
  QSFS_CHECK(write_file(disk, "/log/00000001.data", Buffer(8 * kKiB)).has_value());
  if (has_sums) {
    QSFS_CHECK(
        write_file(disk, "/log/00000001.sums", BlockSums(8 * kKiB).encode(8 * kKiB)).has_value());
  }
  Lsn store;
  RecordView first;
  if (has_store && journal::parse_record(kSegment, journal, journal::kHeaderLen, first) ==
                       journal::ParsedAs::kRecord) {
    store = first.end;
  }
  Applied once;
  const auto report = replay(disk, store, once);
  if (!report || report->damage.has_value()) return;
  // What was cut stays cut, and all else stays. The opening record of the new segment is applied
  // last, and is not part of what was replayed.
  Applied twice;
  QSFS_CHECK(replay(disk, store, twice).has_value());
  QSFS_CHECK(report->records <= once.ends.size());
  QSFS_CHECK(report->records <= twice.ends.size());
  QSFS_CHECK(std::equal(once.ends.begin(),
                        once.ends.begin() + static_cast<std::ptrdiff_t>(report->records),
                        twice.ends.begin()));
}

}  // namespace
}  // namespace qsfs::fs

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qsfs;      // NOLINT(google-build-using-namespace): the body of one function.
  using namespace qsfs::fs;  // NOLINT(google-build-using-namespace): see above.
  if (size == 0 || size > kJournalLenMax) return 0;
  static const bool is_quiet = log::start({.level = log::Level::kOff}).has_value();
  if (!is_quiet) return 0;
  const std::uint8_t mode = data[0];
  const Bytes input = std::as_bytes(std::span(data, size)).subspan(1);
  Buffer journal(input.begin(), input.end());
  if ((mode & 1) != 0) repair(journal);
  const Status walked = for_each_record(kSegment, journal, [](const RecordView& record) {
    return for_each_mutation(record.mutations, [](const Mutation&) { return Status{}; });
  });
  if (!walked) QSFS_CHECK(walked.error().code != Errc::kInternal);
  replay_twice(journal, (mode & 2) != 0, (mode & 4) != 0);
  return 0;
}
