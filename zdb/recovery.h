// Reads back what a data file holds: from its index file as far as that goes, from the data itself
// beyond it, and leaves both whole.
//
// What a crash leaves, and what becomes of it:
// - Frames of the index file count up to the point that the last of them calls durable; the rest of
//   the data file is read and verified.
// - A torn tail is cut. A hole (an entry that does not verify) with entries behind it is
//   = a set that had not finished: it is skipped, what is behind it counts;
//   = a completed set that a power loss took, told by the `complete_below` of an entry behind it:
//     history ends there, so that what is left is a prefix;
//   = damage to what was durable, told by `synced_below`: it costs that entry alone.
#pragma once

#include <functional>
#include <set>
#include <span>
#include <string>

#include "zdb/data_file.h"

namespace qsfs::zdb {

// Gets the entries of the file in order, many at once: values and tombstones. The keys live during
// the call.
using RecordSink = std::function<void(std::span<const IndexRecord>)>;

enum class RecoveryMode {
  kStart,
  // For repair: history does not end where something is missing, so that no entry that can be read
  // is dropped.
  kSalvage,
};

// Fills `file` (header, data_end, index_len, marks), calls `sink`, and raises `next_sequence` to
// what the file proves. `is_newest`: an unfinished creation is removed, and kNotFound returned. kIo
// changes nothing that a later call does not find again.
Status recover_data_file(Disk& disk, DataFile& file, bool is_newest, const RecordSink& sink,
                         std::uint64_t& next_sequence, RecoveryMode mode = RecoveryMode::kStart);

// Those of `ids` that a later one stands for.
Result<std::set<std::uint32_t>> obsolete_files(Disk& disk, const std::string& directory,
                                               const std::set<std::uint32_t>& ids);

// Removes the files that a later one of `ids` stands for (FileHeader::merged_from), from the disk
// and from `ids`.
Status remove_obsolete_files(Disk& disk, const std::string& directory,
                             std::set<std::uint32_t>& ids);

// The header that a data file and its index file share, from whichever verifies.
Result<FileHeader> read_either_header(Disk& disk, const DataFile& file);

// Visits the records of [index_offset, file.index_len) of an index file until `visit` returns
// false. kCorruption when a frame does not verify.
Status visit_index(DiskFile& index, const FileHeader& header, std::uint64_t index_offset,
                   std::uint64_t index_len,
                   const std::function<bool(const FrameHeader&, const IndexRecord&)>& visit);

}  // namespace qsfs::zdb
