#include "zdb/password.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <array>

#include "base/bytes.h"
#include "base/check.h"

namespace qsfs::zdb {

bool passwords_equal(std::string_view given, std::string_view expected) {
  return given.size() == expected.size() &&
         CRYPTO_memcmp(given.data(), expected.data(), expected.size()) == 0;
}

std::string make_challenge(Random& random) {
  std::array<std::byte, kChallengeLen / 2> nonce;
  random.fill(nonce);
  return to_hex(nonce);
}

std::string hash_password(std::string_view challenge, std::string_view password) {
  std::string text;
  text.reserve(challenge.size() + 1 + password.size());
  text.append(challenge).append(1, ':').append(password);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int digest_len = 0;
  const int done =
      EVP_Digest(text.data(), text.size(), digest.data(), &digest_len, EVP_sha1(), nullptr);
  OPENSSL_cleanse(text.data(), text.size());
  QSFS_CHECK(done == 1 && std::size_t{digest_len} * 2 == kPasswordHashLen);
  return to_hex(std::as_bytes(std::span(digest).first(digest_len)));
}

}  // namespace qsfs::zdb
