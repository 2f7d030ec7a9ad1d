#include "tests/zdb/loopback.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

namespace qsfs::zdb {
namespace {

constexpr Duration kServerTimeout = std::chrono::seconds(3600);
constexpr std::string_view kChallenge = "0123456789abcdef";

using Arguments = std::vector<std::string>;

std::string sha1_hex(const std::string& text) {
  std::array<unsigned char, SHA_DIGEST_LENGTH> digest{};
  ::SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return to_hex(std::as_bytes(std::span(digest)));
}

// Takes one whole request from the front of `input`, if there is one. The requests come from our
// own client: no checks.
std::optional<Arguments> take_request(std::string& input) {
  std::size_t at = 0;
  const auto line_number = [&]() -> std::optional<std::size_t> {
    const std::size_t end = input.find("\r\n", at);
    if (end == std::string::npos) return std::nullopt;
    std::size_t number = 0;
    std::from_chars(input.data() + at + 1, input.data() + end, number);
    at = end + 2;
    return number;
  };
  const auto count = line_number();
  if (!count) return std::nullopt;
  Arguments arguments;
  for (std::size_t i = 0; i < *count; ++i) {
    const auto len = line_number();
    if (!len || input.size() < at + *len + 2) return std::nullopt;
    arguments.push_back(input.substr(at, *len));
    at += *len + 2;
  }
  input.erase(0, at);
  return arguments;
}

std::string bulk(std::string_view text) {
  return "$" + std::to_string(text.size()) + "\r\n" + std::string(text) + "\r\n";
}
std::string integer(std::int64_t value) { return ":" + std::to_string(value) + "\r\n"; }

class LoopbackTransport final : public Transport {
 public:
  LoopbackTransport(const LoopbackOptions& options, sim::SimZdb& server, sim::SimClock& clock,
                    LoopbackLog& log)
      : options_(options), server_(server), clock_(clock), log_(log) {}

  Status send_all(std::span<const Bytes> pieces, MonotonicTime /*deadline*/) override {
    for (const Bytes piece : pieces) input_ += as_text(piece);
    while (const auto request = take_request(input_)) {
      log_.add(request->front());
      output_ += run(*request);
    }
    return {};
  }

  Result<std::size_t> receive_some(MutableBytes out, MonotonicTime deadline) override {
    if (sent_ == output_.size()) {
      // Nobody else can make a reply come: the time passes.
      clock_.advance(std::max(deadline - clock_.now(), Duration::zero()));
      return fail(Errc::kTimeout, "no answer in time");
    }
    const std::size_t len = std::min(out.size(), output_.size() - sent_);
    std::ranges::copy(as_bytes(output_).subspan(sent_, len), out.begin());
    sent_ += len;
    if (sent_ == output_.size()) {
      output_.clear();
      sent_ = 0;
    }
    return len;
  }

  bool is_quiet() override { return sent_ == output_.size(); }

 private:
  std::string run(const Arguments& request) {
    const std::string& command = request.front();
    if (command == "AUTH") {
      return options_.knows_challenges ? "+" + std::string(kChallenge) + "\r\n"
                                       : "-Command not supported\r\n";
    }
    if (command == "SELECT") return select(request);
    if (command == "INFO") return info();
    if (!backend_) return "-Namespace not found\r\n";
    if (command == "SET") return set(request);
    if (command == "SCAN") return scan(request);
    if (command == "NSINFO") return namespace_info();
    if (request.size() < 2 || request[1].empty()) return "-Invalid argument\r\n";
    return run_on_key(command, as_bytes(request[1]));
  }

  std::string select(const Arguments& request) {
    const std::string& name = request[1];
    const auto at = options_.passwords.find(name);
    const std::string expected = at == options_.passwords.end() ? "" : at->second;
    std::string password = request.size() == 3 ? request[2] : "";
    if (request.size() == 4) {
      if (request[3] != sha1_hex(std::string(kChallenge) + ":" + expected)) {
        return "-Access denied\r\n";
      }
      password = expected;
    }
    auto backend = server_.make_backend(name, password);
    if (const auto reached = backend->info(kServerTimeout); !reached) {
      return error_line(reached.error());
    }
    backend_ = std::move(backend);
    return "+OK\r\n";
  }

  std::string set(const Arguments& request) {
    const auto exists = request[1].empty() ? Result<std::optional<Buffer>>(std::optional<Buffer>())
                                           : backend_->get(as_bytes(request[1]), kServerTimeout);
    const auto key = backend_->set(as_bytes(request[1]), as_bytes(request[2]), kServerTimeout);
    if (!key) return error_line(key.error());
    const bool is_identical = exists && *exists && as_text(**exists) == request[2];
    return is_identical ? "$-1\r\n" : bulk(as_text(*key));
  }

  std::string run_on_key(const std::string& command, Bytes key) {
    if (command == "GET") {
      const auto value = backend_->get(key, kServerTimeout);
      if (!value) return error_line(value.error());
      return *value ? bulk(as_text(**value)) : "$-1\r\n";
    }
    if (command == "DEL") {
      const auto removed = backend_->remove(key, kServerTimeout);
      if (!removed) return error_line(removed.error());
      return *removed ? "+OK\r\n" : "-Key not found\r\n";
    }
    if (command == "EXISTS") {
      const auto exists = backend_->exists(key, kServerTimeout);
      return exists ? integer(*exists ? 1 : 0) : error_line(exists.error());
    }
    if (command == "LENGTH") {
      const auto len = backend_->length(key, kServerTimeout);
      if (!len) return error_line(len.error());
      return *len ? integer(static_cast<std::int64_t>(**len)) : "$-1\r\n";
    }
    if (command == "CHECK") {
      const auto verdict = backend_->check(key, kServerTimeout);
      if (!verdict) return error_line(verdict.error());
      if (*verdict == CheckVerdict::kMissing) return "$-1\r\n";
      return integer(*verdict == CheckVerdict::kGood      ? 1
                     : *verdict == CheckVerdict::kCorrupt ? 0
                                                          : -1);
    }
    return "-Command not supported\r\n";
  }

  std::string scan(const Arguments& request) {
    const Bytes cursor = request.size() > 1 ? as_bytes(request[1]) : Bytes();
    const auto page = backend_->scan(cursor, kServerTimeout);
    if (!page) return error_line(page.error());
    if (page->entries.empty()) return "-No more data\r\n";
    // The original gives a cursor with every page and says at the next that there is no more.
    Buffer next = page->cursor;
    if (next.empty()) {
      next.resize(17);
      store_le(next.data(), UINT64_MAX);
    }
    std::string reply =
        "*2\r\n" + bulk(as_text(next)) + "*" + std::to_string(page->entries.size()) + "\r\n";
    for (const ScanEntry& entry : page->entries) {
      reply += "*3\r\n" + bulk(as_text(entry.key)) +
               integer(static_cast<std::int64_t>(entry.payload_bytes)) +
               integer(static_cast<std::int64_t>(entry.unix_time_s));
    }
    return reply;
  }

  std::string namespace_info() {
    const auto info = backend_->info(kServerTimeout);
    if (!info) return error_line(info.error());
    return bulk("# namespace\nname: x\nentries: " + std::to_string(info->entries) +
                "\ndata_size_bytes: " + std::to_string(info->data_bytes) +
                "\nnext_internal_id: 0x300000000000000\nmode: " +
                (info->mode == NamespaceMode::kUser ? "userkey" : "sequential") +
                "\ndata_disk_freespace_bytes: " + std::to_string(info->data_disk_free_bytes) +
                "\n");
  }

  std::string info() {
    return bulk("# server\nserver_name: 0-db\ninstance_id: " + server_.instance_id() +
                "\nuptime: 5\n");
  }

  static std::string error_line(const Error& error) {
    switch (error.code) {
      case Errc::kNotFound:
        return "-Namespace not found\r\n";
      case Errc::kAccess:
        return "-Access denied\r\n";
      case Errc::kNoSpace:
        return "-No space left on this namespace\r\n";
      case Errc::kLocked:
        return "-Namespace is temporarily locked (read-only)\r\n";
      case Errc::kInvalidArgument:
        return "-Invalid key format\r\n";
      default:
        return "-Internal Error\r\n";
    }
  }

  const LoopbackOptions& options_;
  sim::SimZdb& server_;
  sim::SimClock& clock_;
  LoopbackLog& log_;
  std::unique_ptr<Backend> backend_;
  std::string input_;
  std::string output_;
  std::size_t sent_ = 0;
};

class LoopbackDialer final : public Dialer {
 public:
  LoopbackDialer(LoopbackOptions options, sim::SimZdb& server, sim::SimClock& clock,
                 LoopbackLog& log)
      : options_(std::move(options)), server_(server), clock_(clock), log_(log) {}

  Result<std::unique_ptr<Transport>> dial(const BackendAddress& /*address*/,
                                          MonotonicTime deadline) override {
    log_.add("dial");
    if (server_.faults().down) return fail(Errc::kUnavailable, "connection refused");
    if (server_.faults().half_open) {
      clock_.advance(std::max(deadline - clock_.now(), Duration::zero()));
      return fail(Errc::kTimeout, "no answer in time");
    }
    return std::make_unique<LoopbackTransport>(options_, server_, clock_, log_);
  }

 private:
  const LoopbackOptions options_;
  sim::SimZdb& server_;
  sim::SimClock& clock_;
  LoopbackLog& log_;
};

}  // namespace

std::unique_ptr<Dialer> make_loopback_dialer(LoopbackOptions options, sim::SimZdb& server,
                                             sim::SimClock& clock, LoopbackLog& log) {
  return std::make_unique<LoopbackDialer>(std::move(options), server, clock, log);
}

}  // namespace qsfs::zdb
