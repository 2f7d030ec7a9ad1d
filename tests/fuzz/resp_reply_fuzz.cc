// The client on arbitrary bytes from a server: no crash, bounded memory, the same answer however
// the bytes are cut, and both reply parsers of one opinion. The first byte of the input chooses the
// cuts.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/check.h"
#include "base/random.h"
#include "tests/sim/sim_clock.h"
#include "zdb/error_text.h"
#include "zdb/info_parser.h"
#include "zdb/remote_backend.h"
#include "zdb/reply.h"

namespace {

using namespace qsfs;
using zdb::Reply;

enum class End { kReply, kError, kIncomplete };

struct Outcome {
  End end = End::kIncomplete;
  Reply reply;
};

bool equal(const Reply& a, const Reply& b) {
  return a.kind == b.kind && a.integer == b.integer && a.bytes == b.bytes &&
         std::equal(a.elements.begin(), a.elements.end(), b.elements.begin(), b.elements.end(),
                    equal);
}

Outcome parse(Bytes input, std::size_t cut_len) {
  zdb::ReplyParser parser;
  while (!input.empty()) {
    const std::size_t len = std::min(cut_len, input.size());
    auto reply = parser.feed(input.first(len));
    input = input.subspan(len);
    if (!reply) return {.end = End::kError};
    if (!*reply) continue;
    // What follows a reply is an error, which the parser sees when it comes with its end.
    if (!input.empty()) return {.end = End::kError};
    return {.end = End::kReply, .reply = std::move(**reply)};
  }
  return {};
}

Outcome parse_bulk(Bytes input, std::size_t cut_len, bool in_place) {
  zdb::BulkReplyReader reader;
  while (!input.empty()) {
    Bytes piece = input.first(std::min(cut_len, input.size()));
    input = input.subspan(piece.size());
    if (in_place) {
      const MutableBytes space = reader.payload_space();
      const std::size_t len = std::min(space.size(), piece.size());
      std::copy_n(piece.begin(), len, space.begin());
      if (len > 0) reader.payload_filled(len);
      piece = piece.subspan(len);
    }
    const auto used = reader.feed(piece);
    if (!used) return {.end = End::kError};
    QSFS_CHECK(*used == piece.size() || reader.is_done());
    if (!reader.is_done()) continue;
    if (*used < piece.size() || !input.empty()) return {.end = End::kError};
    return {.end = End::kReply, .reply = reader.take()};
  }
  return {};
}

void check_parsers(Bytes input, std::size_t cut_len) {
  const Outcome whole = parse(input, input.size());
  const Outcome cut = parse(input, cut_len);
  QSFS_CHECK(whole.end == cut.end && equal(whole.reply, cut.reply));
  const Outcome bulk = parse_bulk(input, cut_len, /*in_place=*/false);
  const Outcome in_place = parse_bulk(input, cut_len, /*in_place=*/true);
  QSFS_CHECK(bulk.end == in_place.end && equal(bulk.reply, in_place.reply));
  // The other parser does not look at the end of line of a bulk, and so takes more.
  if (bulk.end == End::kReply) {
    QSFS_CHECK(whole.end == End::kReply && equal(whole.reply, bulk.reply));
  }
}

// Lets the client log in, gives it the input for the next reply, and closes.
class ScriptTransport final : public zdb::Transport {
 public:
  ScriptTransport(Bytes script, std::size_t cut_len) : script_(script), cut_len_(cut_len) {}

  Status send_all(std::span<const Bytes> /*pieces*/, MonotonicTime /*deadline*/) override {
    return {};
  }
  Result<std::size_t> receive_some(MutableBytes out, MonotonicTime /*deadline*/) override {
    Bytes& source = login_.empty() ? script_ : login_;
    const std::size_t len = std::min({cut_len_, out.size(), source.size()});
    if (len == 0) return fail(Errc::kUnavailable, "closed");
    std::copy_n(source.begin(), len, out.begin());
    source = source.subspan(len);
    return len;
  }
  bool is_quiet() override { return true; }

 private:
  Bytes login_ = as_bytes("+OK\r\n");
  Bytes script_;
  const std::size_t cut_len_;
};

class ScriptDialer final : public zdb::Dialer {
 public:
  ScriptDialer(Bytes script, std::size_t cut_len) : script_(script), cut_len_(cut_len) {}
  Result<std::unique_ptr<zdb::Transport>> dial(const zdb::BackendAddress& /*address*/,
                                               MonotonicTime /*deadline*/) override {
    return std::make_unique<ScriptTransport>(script_, cut_len_);
  }

 private:
  const Bytes script_;
  const std::size_t cut_len_;
};

template <class Call>
void run_command(Bytes input, std::size_t cut_len, Call call) {
  sim::SimClock clock;
  SeededRandom random(1);
  zdb::RemoteBackend backend({.address = {.host = "h", .port = 1}},
                             std::make_unique<ScriptDialer>(input, cut_len), clock, random);
  const auto result = call(backend);
  QSFS_CHECK(result || !result.error().context.empty());
  QSFS_CHECK(backend.stats().requests == 1);
}

void check_commands(Bytes input, std::size_t cut_len) {
  constexpr Duration kTimeout = std::chrono::seconds(1);
  const Bytes key = as_bytes("key");
  using zdb::Backend;
  run_command(input, cut_len, [&](Backend& b) { return b.set(key, key, kTimeout); });
  run_command(input, cut_len, [&](Backend& b) { return b.set({}, key, kTimeout); });
  run_command(input, cut_len, [&](Backend& b) { return b.get(key, kTimeout); });
  run_command(input, cut_len, [&](Backend& b) { return b.remove(key, kTimeout); });
  run_command(input, cut_len, [&](Backend& b) { return b.exists(key, kTimeout); });
  run_command(input, cut_len, [&](Backend& b) { return b.length(key, kTimeout); });
  run_command(input, cut_len, [&](Backend& b) { return b.check(key, kTimeout); });
  run_command(input, cut_len, [&](Backend& b) { return b.scan({}, kTimeout); });
  run_command(input, cut_len, [&](Backend& b) { return b.info(kTimeout); });
  run_command(input, cut_len, [&](Backend& b) { return b.server_info(kTimeout); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const std::size_t cut_len = std::size_t{data[0]} % 16 + 1;
  const Bytes input = std::as_bytes(std::span(data + 1, size - 1));
  check_parsers(input, cut_len);
  check_commands(input, cut_len);
  static_cast<void>(zdb::parse_namespace_info(as_text(input)));
  static_cast<void>(zdb::parse_server_info(as_text(input)));
  QSFS_CHECK(zdb::printable_error(as_text(input), "key").size() <= 210);
  return 0;
}
