// How the protocol proves passwords: plain, or as the hash of a challenge and the password.
#pragma once

#include <string>
#include <string_view>

#include "base/random.h"

namespace qsfs::zdb {

inline constexpr std::size_t kChallengeLen = 16;     // Hexadecimal digits.
inline constexpr std::size_t kPasswordHashLen = 40;  // Hexadecimal digits of a SHA-1.

// Compares without telling by its duration where the first difference is. The lengths are not
// hidden.
bool passwords_equal(std::string_view given, std::string_view expected);

std::string make_challenge(Random& random);

// Lower-case hexadecimal SHA-1 of "challenge:password". SHA-1 is what the protocol says; the
// challenge is never used twice for AUTH.
std::string hash_password(std::string_view challenge, std::string_view password);

}  // namespace qsfs::zdb
