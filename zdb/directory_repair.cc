#include "zdb/directory_repair.h"

#include <algorithm>
#include <array>
#include <set>
#include <unordered_set>

#include "zdb/data_file.h"
#include "zdb/entry_walker.h"
#include "zdb/file_merge.h"
#include "zdb/header_guess.h"
#include "zdb/recovery.h"
#include "zdb/storage_format.h"

namespace qsfs::zdb {
namespace {

// The directory that the namespace "default" always has.
constexpr std::string_view kDefaultDirectory = "00000001";
constexpr std::size_t kMadeUpPasswordBytes = 16;

bool is_missing(const Error& error) { return error.code == Errc::kNotFound; }

class Repairer {
 public:
  Repairer(Disk& disk, Random& random, RepairReport& report)
      : disk_(disk), random_(random), report_(report) {}

  Status repair_mark(const std::string& directory) {
    const std::string mark = directory + "/format";
    const auto content = read_whole_file(disk_, mark, kSettingsFileLenMax);
    if (!content && !is_missing(content.error()) && content.error().code != Errc::kTooBig) {
      return std::unexpected(content.error());
    }
    const Status good = content ? check_format_file(*content, mark) : fail(Errc::kCorruption, mark);
    if (good) return {};
    if (good.error().code != Errc::kCorruption) return good;
    done(mark + ": made anew");
    return write_file_atomically(disk_, mark, encode_format_file());
  }

  Status repair_namespace(const std::string& directory, const std::string& number) {
    QSFS_ASSIGN(const std::vector<std::string> names, disk_.list(directory));
    std::set<std::uint32_t> ids;
    for (const std::string& name : names) {
      if (const auto id = data_file_number(name)) ids.insert(*id);
    }
    QSFS_ASSIGN(const bool is_kept, repair_settings(directory, number, !ids.empty()));
    if (!is_kept) return {};
    const std::size_t before = ids.size();
    QSFS_TRY(remove_obsolete_files(disk_, directory, ids));
    if (ids.size() < before) done(directory + ": files that compaction had replaced are removed");
    std::uint64_t next_sequence = 0;
    for (const std::uint32_t id : ids) {
      QSFS_TRY(repair_file(directory, id, id == *ids.rbegin(), next_sequence));
    }
    return {};
  }

 private:
  void done(std::string text) {
    ++report_.action_count;
    if (report_.actions.size() < kCheckFindingsMax) report_.actions.push_back(std::move(text));
  }

  // False: the next start removes the directory.
  Result<bool> repair_settings(const std::string& directory, const std::string& number,
                               bool holds_data) {
    const std::string path = directory + "/settings";
    const auto content = read_whole_file(disk_, path, kSettingsFileLenMax);
    if (!content && !is_missing(content.error()) && content.error().code != Errc::kTooBig) {
      return std::unexpected(content.error());
    }
    if (!content && is_missing(content.error()) && !holds_data) return false;
    const Result<StoredSettings> stored =
        content ? decode_settings(*content, path) : fail(Errc::kCorruption, path);
    if (stored) {
      mode_ = stored->settings.mode;
      return !stored->dropped;
    }
    if (stored.error().code != Errc::kCorruption) return std::unexpected(stored.error());
    // Nobody knows whether it had a password: nobody gets in until an administrator says so.
    std::array<std::byte, kMadeUpPasswordBytes> password;
    random_.fill(password);
    mode_ = NamespaceMode::kUser;
    const bool is_default = number == kDefaultDirectory;
    const StoredSettings made{
        .name = is_default ? "default" : "recovered-" + number,
        .settings = {.mode = mode_, .password = to_hex(password), .is_public = false}};
    done(path + ": made anew for \"" + made.name +
         "\", with a password that nobody knows; set another with NSSET");
    QSFS_TRY(write_file_atomically(disk_, path, encode_settings(made)));
    return true;
  }

  Status repair_file(const std::string& directory, std::uint32_t id, bool is_newest,
                     std::uint64_t& next_sequence) {
    DataFile file(id, directory);
    const auto data = disk_.open(file.data_path, OpenMode::kReadWrite);
    if (!data && is_missing(data.error())) return {};  // Its keys stay known as lost.
    if (!data) return std::unexpected(data.error());
    const auto header = read_either_header(disk_, file);
    if (!header && header.error().code != Errc::kCorruption && !is_missing(header.error())) {
      return std::unexpected(header.error());
    }
    if (header) {
      mode_ = header->mode;
      QSFS_TRY(repair_data_header(**data, file, *header));
      QSFS_ASSIGN(const bool is_complete, index_is_complete(**data, file, *header));
      if (!is_complete) QSFS_TRY(remove_index(file));
    } else {
      QSFS_ASSIGN(const std::uint64_t size, (*data)->size());
      const bool is_unfinished = is_newest && size <= kFileHeaderLen;
      QSFS_ASSIGN(const auto guess, guess_file_header(**data, id, mode_));
      if (!guess && !is_unfinished) return set_aside(file);
      if (guess) {
        done(file.data_path + ": its header is made anew");
        QSFS_TRY((*data)->pwrite(0, encode_file_header(FileKind::kData, *guess)));
        QSFS_TRY((*data)->datasync());
        QSFS_TRY(remove_index(file));
      }
    }
    const Status recovered = recover_data_file(
        disk_, file, is_newest, [](const IndexRecord&) {}, next_sequence, RecoveryMode::kSalvage);
    if (recovered || is_missing(recovered.error())) return {};
    return recovered;
  }

  Status repair_data_header(DiskFile& data, const DataFile& file, const FileHeader& header) {
    Buffer bytes(kFileHeaderLen);
    QSFS_ASSIGN(const std::size_t got, data.pread(0, bytes));
    bytes.resize(got);
    if (decode_file_header(FileKind::kData, bytes, file.data_path)) return {};
    done(file.data_path + ": its header is restored from the index file");
    QSFS_TRY(data.pwrite(0, encode_file_header(FileKind::kData, header)));
    return data.datasync();
  }

  // Whether the index file verifies and knows every entry of the part that it describes.
  Result<bool> index_is_complete(DiskFile& data, const DataFile& file, const FileHeader& header) {
    const auto index = disk_.open(file.index_path, OpenMode::kRead);
    if (!index && is_missing(index.error())) return false;
    if (!index) return std::unexpected(index.error());
    Buffer bytes(kFileHeaderLen);
    QSFS_ASSIGN(const std::size_t got, (*index)->pread(0, bytes));
    bytes.resize(got);
    const auto own = decode_file_header(FileKind::kIndex, bytes, file.index_path);
    if (!own || *own != header) return false;
    std::unordered_set<std::uint64_t> known;
    std::uint64_t end = kFileHeaderLen;
    QSFS_ASSIGN(const std::uint64_t index_size, (*index)->size());
    const Status visited = visit_index(**index, header, kFileHeaderLen, index_size,
                                       [&](const FrameHeader& frame, const IndexRecord& record) {
                                         end = std::max(end, frame.data_end);
                                         known.insert(record.offset);
                                         return true;
                                       });
    // One that ends in damage is continued by recovery.
    if (!visited && visited.error().code != Errc::kCorruption)
      return std::unexpected(visited.error());
    QSFS_ASSIGN(const std::uint64_t size, data.size());
    bool is_complete = true;
    QSFS_TRY(walk_entries(data,
                          {.salt = header.salt,
                           .begin = kFileHeaderLen,
                           .size = std::min(end, size),
                           .verify_values = true},
                          [&](const WalkItem& item) {
                            const bool counts = item.header && item.value_good &&
                                                item.header->type != EntryType::kSkip;
                            if (counts && !known.contains(item.begin)) is_complete = false;
                          }));
    return is_complete;
  }

  Status remove_index(const DataFile& file) {
    done(file.index_path + ": made anew from the data");
    const Status removed = disk_.remove(file.index_path);
    if (!removed && !is_missing(removed.error())) return removed;
    return {};
  }

  Status set_aside(const DataFile& file) {
    done(file.data_path + ": nothing in it can be read; renamed to " + file.data_path + ".damaged");
    QSFS_TRY(disk_.rename(file.data_path, file.data_path + ".damaged"));
    const Status renamed = disk_.rename(file.index_path, file.index_path + ".damaged");
    if (!renamed && !is_missing(renamed.error())) return renamed;
    return disk_.sync_directory(parent_path(file.data_path));
  }

  Disk& disk_;
  Random& random_;
  RepairReport& report_;
  NamespaceMode mode_ = NamespaceMode::kUser;  // Of the namespace that is being repaired.
};

}  // namespace

Result<RepairReport> repair_directory(const std::string& directory, Disk& disk, Random& random) {
  const std::string namespaces = directory + "/namespaces";
  const auto found = disk.stat(namespaces);
  if (!found) return with_context(found.error(), directory + " is not a data directory");
  QSFS_ASSIGN(const auto lock, disk.lock_file(directory + "/lock"));
  RepairReport report;
  Repairer repairer(disk, random, report);
  QSFS_TRY(repairer.repair_mark(directory));
  QSFS_ASSIGN(std::vector<std::string> names, disk.list(namespaces));
  std::ranges::sort(names);
  for (const std::string& name : names) {
    QSFS_TRY(repairer.repair_namespace(namespaces + "/" + name, name));
  }
  QSFS_ASSIGN(report.now, check_locked_directory(directory, disk));
  return report;
}

}  // namespace qsfs::zdb
