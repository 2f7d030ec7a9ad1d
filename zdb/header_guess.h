// Finds out the header of a data file whose own header and whose index file's are both damaged.
#pragma once

#include "base/disk.h"
#include "zdb/storage_format.h"

namespace qsfs::zdb {

// Different salts that are kept in mind while the entries vote.
inline constexpr std::size_t kSaltVotesMax = 4096;

// All checksums of a file are bound to its salt in the same way, so each entry whose value matches
// its own checksum tells what the salt must have been; most votes win. The salt that is returned
// verifies the same entries as the lost one. nullopt: there is no such entry. `file_id` and `mode`
// are taken as they are. kIo: a read failed.
Result<std::optional<FileHeader>> guess_file_header(DiskFile& data, std::uint32_t file_id,
                                                    NamespaceMode mode);

}  // namespace qsfs::zdb
