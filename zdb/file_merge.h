// Puts one data file in the place of several neighbours: the bytes and files of a compaction. What
// is worth doing, and what the table has to say, is the namespace's business.
//
// How it goes: the entries that are kept are copied in their order to NNNNNNNN.merge, and their
// records to NNNNNNNN.merge-index. Both are synced. Renaming the data file over the last of its
// sources is the commit: its header says that it stands for the numbers from `merged_from` on, and
// the next open removes those that are still there. A crash before it leaves the sources as they
// were, and two files that the next open removes; one after it, at worst an index file to be made
// anew.
//
// Not thread-safe. The members of the sources that change are not looked at.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "zdb/data_file.h"
#include "zdb/key_table.h"

namespace qsfs::zdb {

// Copied, and paid for, at once; one entry may be longer.
inline constexpr std::size_t kMergeChunkBytes = 1 * kMiB;

inline constexpr std::string_view kMergeDataSuffix = ".merge";
inline constexpr std::string_view kMergeIndexSuffix = ".merge-index";

struct MergeSource {
  std::shared_ptr<DataFile> file;
  std::shared_ptr<DiskFile> data;
  std::unique_ptr<DiskFile> index;
  std::uint64_t index_len = 0;
};

class FileMerge {
 public:
  // `sources`: closed files in their order. `output`: carries the last one's number and a header;
  // gets everything else by copy(), but for the slot and the live entries.
  FileMerge(Disk& disk, std::vector<MergeSource> sources, std::shared_ptr<DataFile> output,
            const std::string& directory);

  // Visits all records of the sources in order, numbered from 0. False ends it early.
  using Visitor =
      std::function<bool(std::size_t number, const MergeSource& source, const IndexRecord& record)>;
  Status visit(const Visitor& visitor) const;

  // Plans to copy a record; each at most once, in any order, before copy().
  void keep(std::size_t number, std::uint64_t total_len);
  [[nodiscard]] bool is_kept(std::size_t number) const {
    return number < kept_.size() && kept_[number];
  }
  [[nodiscard]] bool keeps_nothing() const { return kept_bytes_ == 0; }
  // The data file's size will be that.
  [[nodiscard]] std::uint64_t output_len() const { return kFileHeaderLen + kept_bytes_; }

  // Writes both files and makes them durable. `pay` is called for each chunk; what it fails with is
  // returned. kCorruption: the header of an entry to be copied is damaged. A value that is damaged
  // is copied with the checksum that says so.
  Status copy(const std::function<Status(std::uint64_t bytes)>& pay);

  // The source with the damaged entry, after copy() failed with kCorruption.
  [[nodiscard]] const DataFile* damaged() const { return damaged_; }

  // Puts the files in their place. On failure nothing has changed (discard() the files).
  Status commit();
  // Whether a power loss can no longer undo the commit.
  [[nodiscard]] bool is_durable() const { return durable_; }
  // Removes the files of a merge that does not come to its end.
  void discard();

  // Visits what was kept once more: where each value was, and where it is now.
  using MoveVisitor =
      std::function<void(const IndexRecord& record, const EntryPlace& from, const EntryPlace& to)>;
  Status visit_moves(const MoveVisitor& visitor) const;

  [[nodiscard]] const std::vector<MergeSource>& sources() const { return sources_; }
  [[nodiscard]] const std::shared_ptr<DataFile>& output() const { return output_; }

 private:
  // Entries before the sources keep naming them; none in the sources is older than the output.
  [[nodiscard]] std::uint32_t oldest_file_of(const IndexRecord& record) const;
  Status copy_entry(const MergeSource& source, const IndexRecord& record);
  Result<Bytes> read_entry(const MergeSource& source, std::uint64_t offset, std::uint64_t len);
  Status flush_data();
  Status flush_frame(bool is_last);

  Disk& disk_;
  const std::vector<MergeSource> sources_;
  const std::shared_ptr<DataFile> output_;
  const std::uint32_t first_source_;  // The lowest number.
  const std::string data_temporary_;
  const std::string index_temporary_;

  std::vector<bool> kept_;
  std::uint64_t kept_bytes_ = 0;
  bool durable_ = false;
  const DataFile* damaged_ = nullptr;  // Among the sources.

  // While copying.
  std::unique_ptr<DiskFile> data_;
  std::unique_ptr<DiskFile> index_;
  Buffer window_;  // Of window_source_, from window_begin_ on.
  const MergeSource* window_source_ = nullptr;
  std::uint64_t window_begin_ = 0;
  std::uint64_t read_bytes_ = 0;  // Not paid for yet.
  Buffer chunk_;                  // Waits to be written at chunk_begin_.
  std::uint64_t chunk_begin_ = 0;
  Buffer records_;
  FrameHeader frame_;
  std::uint64_t frame_sequence_ = 0;
};

}  // namespace qsfs::zdb
