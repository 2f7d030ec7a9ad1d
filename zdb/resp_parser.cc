#include "zdb/resp_parser.h"

#include <algorithm>
#include <charconv>
#include <new>

#include "base/check.h"

namespace qsfs::zdb {
namespace {

constexpr std::string_view kArrayExpected = "Malformed request, array expected";
constexpr std::string_view kMissingArguments = "Missing arguments";
constexpr std::string_view kTooManyArguments = "Too many arguments";
constexpr std::string_view kMalformedArgument = "Malformed query string";
constexpr std::string_view kPayloadTooBig = "Payload too big";
constexpr std::string_view kNoMemory = "Internal memory error";

// What a parser keeps between requests, so that small ones cost no allocation.
constexpr std::size_t kSlotsKept = 8;
constexpr std::size_t kSlotBytesKept = 4 * kKiB;
constexpr std::size_t kSlotCapacityMin = 64;

// nullopt unless the whole text is a decimal number.
std::optional<std::int64_t> parse_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

bool RequestParser::in_request() const {
  return phase_ != Phase::kDone && phase_ != Phase::kFailed &&
         (phase_ != Phase::kCount || line_len_ > 0);
}

RequestParser::Progress RequestParser::feed(Bytes in) {
  if (phase_ == Phase::kDone) finish_request();
  Progress progress;
  while (phase_ != Phase::kDone && phase_ != Phase::kFailed && progress.consumed < in.size()) {
    const Bytes rest = in.subspan(progress.consumed);
    switch (phase_) {
      case Phase::kCount:
      case Phase::kLength:
        progress.consumed += feed_line(rest);
        break;
      case Phase::kPayload:
        progress.consumed += feed_payload(rest);
        break;
      case Phase::kPayloadEnd:
        feed_payload_end(rest.front());
        ++progress.consumed;
        break;
      case Phase::kDone:
      case Phase::kFailed:
        break;
    }
  }
  if (phase_ == Phase::kDone) progress.state = State::kRequest;
  if (phase_ == Phase::kFailed) progress.state = State::kError;
  return progress;
}

std::size_t RequestParser::feed_line(Bytes in) {
  const bool is_count = phase_ == Phase::kCount;
  const std::string_view malformed = is_count ? kArrayExpected : kMalformedArgument;
  std::size_t used = 0;
  for (const char c : as_text(in)) {
    ++used;
    // A wrong marker is told at once: such a client may never send the end of a line.
    const bool wrong_marker = line_len_ == 0 && c != (is_count ? '*' : '$');
    if (wrong_marker || line_len_ == line_.size()) {
      set_failed(malformed);
      return used;
    }
    if (c == '\n') {
      end_line();
      return used;
    }
    line_[line_len_++] = c;
  }
  return used;
}

void RequestParser::end_line() {
  const bool is_count = phase_ == Phase::kCount;
  std::string_view text(line_.data(), line_len_);
  line_len_ = 0;
  std::optional<std::int64_t> number;
  if (text.ends_with('\r')) number = parse_number(text.substr(1, text.size() - 2));
  if (!number) return set_failed(is_count ? kArrayExpected : kMalformedArgument);

  if (is_count) {
    if (*number <= 0) return set_failed(kMissingArguments);
    if (*number > static_cast<std::int64_t>(kRequestArgumentsMax)) {
      return set_failed(kTooManyArguments);
    }
    arguments_expected_ = static_cast<std::size_t>(*number);
    phase_ = Phase::kLength;
    return;
  }
  if (*number < 0) return set_failed(kMalformedArgument);
  if (*number > static_cast<std::int64_t>(kArgumentLenMax)) return set_failed(kPayloadTooBig);
  const auto len = static_cast<std::size_t>(*number);
  if (request_bytes_ + len > kRequestBytesMax) return set_failed(kPayloadTooBig);
  if (!reserve(len)) return set_failed(kNoMemory);
  phase_ = len == 0 ? Phase::kPayloadEnd : Phase::kPayload;
}

bool RequestParser::reserve(std::size_t len) {
  request_bytes_ += len;
  const std::size_t wanted =
      request_bytes_ > kUnbudgetedRequestBytes ? request_bytes_ - kUnbudgetedRequestBytes : 0;
  if (budget_ != nullptr && wanted > budgeted_bytes_) {
    if (!budget_->try_acquire(wanted - budgeted_bytes_)) return false;
    budgeted_bytes_ = wanted;
  }
  if (slots_.size() == arguments_received_) slots_.emplace_back();
  Slot& slot = slots_[arguments_received_];
  slot.size = len;
  slot.filled = 0;
  if (slot.capacity >= len) return true;
  const std::size_t capacity = std::max(len, kSlotCapacityMin);
  slot.data.reset(new (std::nothrow) std::byte[capacity]);
  slot.capacity = slot.data ? capacity : 0;
  return slot.data != nullptr;
}

std::size_t RequestParser::feed_payload(Bytes in) {
  const MutableBytes space = payload_space();
  const std::size_t len = std::min(space.size(), in.size());
  std::memcpy(space.data(), in.data(), len);
  payload_filled(len);
  return len;
}

MutableBytes RequestParser::payload_space() {
  if (phase_ != Phase::kPayload) return {};
  Slot& slot = slots_[arguments_received_];
  return {slot.data.get() + slot.filled, slot.size - slot.filled};
}

void RequestParser::payload_filled(std::size_t len) {
  if (len == 0) return;
  QSFS_CHECK(len <= payload_space().size());
  Slot& slot = slots_[arguments_received_];
  slot.filled += len;
  if (slot.filled == slot.size) phase_ = Phase::kPayloadEnd;
}

void RequestParser::feed_payload_end(std::byte byte) {
  constexpr std::string_view kEnd = "\r\n";
  // The original counts these two bytes without looking. Looking finds a client that is out of
  // step before its data is taken for commands.
  if (byte != static_cast<std::byte>(kEnd[payload_end_seen_])) {
    return set_failed(kMalformedArgument);
  }
  if (++payload_end_seen_ < kEnd.size()) return;
  payload_end_seen_ = 0;
  phase_ = Phase::kLength;
  if (++arguments_received_ < arguments_expected_) return;
  arguments_.clear();
  for (std::size_t i = 0; i < arguments_received_; ++i) {
    arguments_.emplace_back(slots_[i].data.get(), slots_[i].size);
  }
  phase_ = Phase::kDone;
}

void RequestParser::finish_request() {
  if (phase_ != Phase::kDone) return;
  phase_ = Phase::kCount;
  arguments_.clear();
  arguments_expected_ = 0;
  arguments_received_ = 0;
  request_bytes_ = 0;
  release_budget();
  if (slots_.size() > kSlotsKept) slots_.resize(kSlotsKept);
  for (Slot& slot : slots_) {
    if (slot.capacity > kSlotBytesKept) slot = Slot{};
  }
}

void RequestParser::set_failed(std::string_view text) {
  phase_ = Phase::kFailed;
  error_text_ = text;
  // The connection lives until the error text is sent; its half request does not.
  slots_.clear();
  release_budget();
}

void RequestParser::release_budget() {
  if (budget_ != nullptr && budgeted_bytes_ > 0) budget_->release(budgeted_bytes_);
  budgeted_bytes_ = 0;
}

}  // namespace qsfs::zdb
