#include "zdb/directory_check.h"

#include <algorithm>
#include <memory>
#include <set>
#include <unordered_set>

#include "zdb/data_file.h"
#include "zdb/entry_walker.h"
#include "zdb/file_merge.h"
#include "zdb/recovery.h"
#include "zdb/storage_format.h"

namespace qsfs::zdb {
namespace {

class Checker {
 public:
  Checker(Disk& disk, CheckReport& report) : disk_(disk), report_(report) {}

  Status check_namespace(const std::string& directory) {
    const std::string settings = directory + "/settings";
    const auto content = read_whole_file(disk_, settings, kSettingsFileLenMax);
    if (!content && content.error().code != Errc::kNotFound) {
      return std::unexpected(content.error());
    }
    QSFS_ASSIGN(std::vector<std::string> names, disk_.list(directory));
    std::ranges::sort(names);
    const bool holds_data =
        std::ranges::any_of(names, [](const std::string& name) { return name.ends_with(".data"); });
    if (!content) {
      if (holds_data) add_damage(settings + ": missing beside data");
      if (!holds_data) add_note(directory + ": left over; the next start removes it");
      if (!holds_data) return {};
    } else {
      const auto decoded = decode_settings(*content, settings);
      if (!decoded && decoded.error().code != Errc::kCorruption) {
        return std::unexpected(decoded.error());
      }
      if (!decoded) add_damage(decoded.error().message());
      if (decoded && decoded->dropped) {
        add_note(directory + ": being removed; the next start goes on");
        return {};
      }
    }
    ++report_.namespaces;
    QSFS_ASSIGN(const std::set<std::uint32_t> ids, current_files(directory, names));
    for (const std::string& name : names) {
      const std::string path = directory + "/" + name;
      const auto id = data_file_number(name);
      if (!id && (name.ends_with(kMergeDataSuffix) || name.ends_with(kMergeIndexSuffix))) {
        add_note(path + ": of an interrupted compaction; the next start removes it");
      }
      if (id && !ids.contains(*id)) {
        add_note(path + ": replaced by compaction; the next start removes it");
        continue;
      }
      if (name.ends_with(".data")) {
        QSFS_TRY(check_data_file(path));
      } else if (name.ends_with(".index")) {
        const std::string stem = name.substr(0, name.size() - std::string_view(".index").size());
        if (!std::ranges::binary_search(names, stem + ".data")) {
          add_damage(path + ": its data file is missing");
        }
      }
    }
    return {};
  }

 private:
  // The numbers of the files that no other stands for.
  Result<std::set<std::uint32_t>> current_files(const std::string& directory,
                                                const std::vector<std::string>& names) {
    std::set<std::uint32_t> ids;
    for (const std::string& name : names) {
      if (const auto id = data_file_number(name)) ids.insert(*id);
    }
    QSFS_ASSIGN(const std::set<std::uint32_t> obsolete, obsolete_files(disk_, directory, ids));
    for (const std::uint32_t id : obsolete) ids.erase(id);
    return ids;
  }

  void add_damage(std::string text) {
    ++report_.damaged;
    if (report_.damage.size() < kCheckFindingsMax) report_.damage.push_back(std::move(text));
  }
  void add_note(std::string text) {
    if (report_.notes.size() < kCheckFindingsMax) report_.notes.push_back(std::move(text));
  }

  // nullopt: the file is missing or its header does not verify; then `problem` says so.
  Result<std::optional<FileHeader>> read_header(const std::string& path, FileKind kind,
                                                std::unique_ptr<DiskFile>& file,
                                                std::string& problem) {
    auto opened = disk_.open(path, OpenMode::kRead);
    if (!opened && opened.error().code == Errc::kNotFound) {
      problem = path + ": missing";
      return std::optional<FileHeader>();
    }
    if (!opened) return std::unexpected(opened.error());
    file = std::move(*opened);
    Buffer bytes(kFileHeaderLen);
    QSFS_ASSIGN(const std::size_t got, file->pread(0, bytes));
    bytes.resize(got);
    const auto header = decode_file_header(kind, bytes, path);
    if (header) return std::optional<FileHeader>(*header);
    if (header.error().code != Errc::kCorruption) return std::unexpected(header.error());
    problem = header.error().message();
    return std::optional<FileHeader>();
  }

  Status check_data_file(const std::string& path) {
    ++report_.data_files;
    const std::string index_path =
        path.substr(0, path.size() - std::string_view(".data").size()) + ".index";
    std::unique_ptr<DiskFile> data;
    std::unique_ptr<DiskFile> index;
    std::string data_problem;
    std::string index_problem;
    QSFS_ASSIGN(const auto data_header, read_header(path, FileKind::kData, data, data_problem));
    QSFS_ASSIGN(const auto index_header,
                read_header(index_path, FileKind::kIndex, index, index_problem));
    if (!data_header && !index_header) {
      add_damage(data_problem + "; " + index_problem);
      return {};
    }
    // Either header restores the other.
    const FileHeader header = data_header ? *data_header : *index_header;
    if (!data_header) add_note(data_problem);
    if (!index_header) add_note(index_problem + "; the next start makes it from the data");
    QSFS_TRY(walk(*data, path, header));
    if (index_header) QSFS_TRY(compare_index(*index, index_path, path, header));
    for (const WalkItem& item : bad_) {
      // Beyond the index only what a later entry calls durable is damage and not unfinished.
      if (item.begin < indexed_end_ || item.end > synced_below_) continue;
      add_damage(path + ": " + std::to_string(item.end - item.begin) + " bytes at " +
                 std::to_string(item.begin) + " are damaged");
    }
    return {};
  }

  Status walk(DiskFile& data, const std::string& /*path*/, const FileHeader& header) {
    good_.clear();
    bad_.clear();
    synced_below_ = kFileHeaderLen;
    indexed_end_ = kFileHeaderLen;
    QSFS_ASSIGN(const std::uint64_t size, data.size());
    const WalkOptions options{
        .salt = header.salt, .begin = kFileHeaderLen, .size = size, .verify_values = true};
    return walk_entries(data, options, [this](const WalkItem& item) {
      if (item.header) synced_below_ = std::max(synced_below_, item.header->synced_below);
      if (!item.header || !item.value_good) {
        bad_.push_back({.begin = item.begin, .end = item.end, .header = {}, .key = {}});
      } else if (item.header->type != EntryType::kSkip) {
        good_.insert(item.begin);
        ++report_.entries;
      }
    });
  }

  // Every entry that the index knows was durable: it must be there.
  Status compare_index(DiskFile& index, const std::string& index_path, const std::string& path,
                       const FileHeader& header) {
    QSFS_ASSIGN(const std::uint64_t size, index.size());
    const Status visited = visit_index(
        index, header, kFileHeaderLen, size,
        [&](const FrameHeader& frame, const IndexRecord& record) {
          // Frames may run ahead of the data by what a power loss took.
          if (frame.data_end > std::max(frame.synced_below, synced_below_)) return false;
          indexed_end_ = std::max(indexed_end_, frame.data_end);
          if (!good_.contains(record.offset)) {
            add_damage(path + ": the entry at " + std::to_string(record.offset) + " is damaged");
          }
          return true;
        });
    if (visited) return {};
    if (visited.error().code != Errc::kCorruption) return visited;
    add_note(index_path + ": ends in damage; the next start makes that part from the data");
    return {};
  }

  Disk& disk_;
  CheckReport& report_;
  // Of the data file that is being looked at.
  std::unordered_set<std::uint64_t> good_;
  std::vector<WalkItem> bad_;
  std::uint64_t synced_below_ = 0;
  std::uint64_t indexed_end_ = 0;
};

}  // namespace

Result<CheckReport> check_directory(const std::string& directory, Disk& disk) {
  const std::string mark = directory + "/format";
  const auto content = read_whole_file(disk, mark, kSettingsFileLenMax);
  if (!content) return with_context(content.error(), directory + " is not a data directory");
  QSFS_ASSIGN(const auto lock, disk.lock_file(directory + "/lock"));
  return check_locked_directory(directory, disk);
}

Result<CheckReport> check_locked_directory(const std::string& directory, Disk& disk) {
  const std::string mark = directory + "/format";
  QSFS_ASSIGN(const Buffer content, read_whole_file(disk, mark, kSettingsFileLenMax));
  QSFS_TRY(check_format_file(content, mark));
  CheckReport report;
  Checker checker(disk, report);
  QSFS_ASSIGN(std::vector<std::string> names, disk.list(directory + "/namespaces"));
  std::ranges::sort(names);
  for (const std::string& name : names) {
    QSFS_TRY(checker.check_namespace(directory + "/namespaces/" + name));
  }
  return report;
}

}  // namespace qsfs::zdb
