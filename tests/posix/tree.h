// Directory trees as text, to be compared.
#pragma once

#include <sys/stat.h>

#include <string>

namespace qsfs::posix {

// Type, mode, owner, links, device, and the size where it says something about the content.
std::string describe(const struct stat& info);
// Names and types, sorted. Does not close the descriptor.
std::string list_directory(int fd);
// Names that end in NUL, as listxattr(2) gives them, sorted and separated by blanks.
std::string sorted_names(const std::string& names);
// A line for each inode at and below the directory.
std::string describe_tree(int directory, bool everything);

}  // namespace qsfs::posix
