// The keys that a configuration may have, and which of them a misspelt one is nearest to.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace qsfs::zstor {

// All keys and tables, dotted and without indices. Lives for ever.
std::span<const std::string_view> known_keys();

// Whether `path`, dotted and without indices ("groups.backends.address"), is a key or a table.
bool is_known_key(std::string_view path);

// The known path that is nearest by edit distance; one in the same table is preferred.
std::string_view nearest_known_key(std::string_view path);

// "groups[0].backends[2].address" -> "groups.backends.address".
std::string without_indices(std::string_view path);

}  // namespace qsfs::zstor
