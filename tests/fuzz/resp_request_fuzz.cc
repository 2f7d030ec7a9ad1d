// The server's parser on arbitrary bytes: no crash, bounded memory, and the same answer however the
// bytes are cut. The first byte of the input chooses the cuts.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "zdb/resp_parser.h"

namespace {

using qsfs::Bytes;
using qsfs::MutableBytes;
using qsfs::zdb::ByteBudget;
using qsfs::zdb::RequestParser;

// Small, so that an input of some bytes can ask for more than there is.
constexpr std::uint64_t kBudgetBytes = 1024 * 1024;

struct Outcome {
  std::vector<std::string> arguments;
  std::vector<std::size_t> counts;  // Of arguments, for each request.
  std::string_view error;
  bool operator==(const Outcome&) const = default;
};

// False when the stream has ended with an error.
bool feed_piece(RequestParser& parser, Bytes piece, Outcome& outcome) {
  while (!piece.empty()) {
    const RequestParser::Progress progress = parser.feed(piece);
    QSFS_CHECK(progress.consumed > 0 && progress.consumed <= piece.size());
    piece = piece.subspan(progress.consumed);
    if (progress.state == RequestParser::State::kError) {
      outcome.error = parser.error_text();
      QSFS_CHECK(!outcome.error.empty());
      return false;
    }
    if (progress.state != RequestParser::State::kRequest) continue;
    QSFS_CHECK(!parser.arguments().empty());
    outcome.counts.push_back(parser.arguments().size());
    for (const Bytes argument : parser.arguments()) {
      outcome.arguments.emplace_back(qsfs::as_text(argument));
    }
  }
  return true;
}

Outcome parse(Bytes input, std::size_t cut_len, bool direct) {
  ByteBudget budget(kBudgetBytes);
  Outcome outcome;
  {
    RequestParser parser(&budget);
    while (!input.empty()) {
      Bytes piece = input.first(std::min(cut_len, input.size()));
      input = input.subspan(piece.size());
      if (direct) {
        const MutableBytes space = parser.payload_space();
        const std::size_t len = std::min(space.size(), piece.size());
        std::copy_n(piece.begin(), len, space.begin());
        parser.payload_filled(len);
        piece = piece.subspan(len);
      }
      if (!feed_piece(parser, piece, outcome)) break;
    }
    QSFS_CHECK(budget.used_bytes() <= kBudgetBytes);
  }
  QSFS_CHECK(budget.used_bytes() == 0);
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const std::size_t cut_len = std::size_t{data[0]} % 16 + 1;
  const Bytes input = std::as_bytes(std::span(data + 1, size - 1));
  const Outcome whole = parse(input, input.size(), /*direct=*/false);
  QSFS_CHECK(parse(input, cut_len, /*direct=*/false) == whole);
  QSFS_CHECK(parse(input, cut_len, /*direct=*/true) == whole);
  return 0;
}
