#include "zdb/reply.h"

#include <hiredis/read.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string>

#include "base/check.h"

namespace qsfs::zdb {
namespace {

constexpr std::string_view kEndOfLine = "\r\n";

std::unexpected<Error> malformed(std::string why) { return fail(Errc::kProtocol, std::move(why)); }

// What the callbacks of one parse share.
struct Build {
  Reply root;
  std::size_t nodes = 0;
  bool over_limit = false;
};

// Makes the node for `task`: the root, or the next element of its parent. Only the last element of
// an array is ever unfinished, so that appending moves none that hiredis still points to. Growing
// with what has arrived, not with what was announced, is what bounds the memory.
Reply* new_node(const redisReadTask* task, Reply::Kind kind) {
  auto& build = *static_cast<Build*>(task->privdata);
  if (build.nodes == kReplyNodesMax) {
    build.over_limit = true;
    return nullptr;
  }
  ++build.nodes;
  Reply* node = &build.root;
  if (task->parent != nullptr) {
    node = &static_cast<Reply*>(task->parent->obj)->elements.emplace_back();
  }
  node->kind = kind;
  return node;
}

void* create_string(const redisReadTask* task, char* text, std::size_t len) {
  const Reply::Kind kind = task->type == REDIS_REPLY_STATUS  ? Reply::Kind::kStatus
                           : task->type == REDIS_REPLY_ERROR ? Reply::Kind::kError
                                                             : Reply::Kind::kBulk;
  Reply* node = new_node(task, kind);
  if (node == nullptr) return nullptr;
  const Bytes bytes = as_bytes({text, len});
  node->bytes.assign(bytes.begin(), bytes.end());
  return node;
}

void* create_array(const redisReadTask* task, int count) {
  auto& build = *static_cast<Build*>(task->privdata);
  if (count < 0 || static_cast<std::size_t>(count) > kReplyNodesMax - build.nodes) {
    build.over_limit = true;
    return nullptr;
  }
  return new_node(task, Reply::Kind::kArray);
}

void* create_integer(const redisReadTask* task, long long value) {
  Reply* node = new_node(task, Reply::Kind::kInteger);
  if (node != nullptr) node->integer = value;
  return node;
}

void* create_nil(const redisReadTask* task) { return new_node(task, Reply::Kind::kNil); }

// The nodes belong to Build.
void free_nothing(void* /*object*/) {}

redisReplyObjectFunctions kCallbacks = {.createString = create_string,
                                        .createArray = create_array,
                                        .createInteger = create_integer,
                                        .createNil = create_nil,
                                        .freeObject = free_nothing};

}  // namespace

struct ReplyParser::State {
  Build build;
  std::size_t fed = 0;
  redisReader* reader = nullptr;
};

ReplyParser::ReplyParser() : state_(std::make_unique<State>()) {
  state_->reader = ::redisReaderCreateWithFunctions(&kCallbacks);
  QSFS_CHECK(state_->reader != nullptr);
  state_->reader->privdata = &state_->build;
}

ReplyParser::~ReplyParser() { ::redisReaderFree(state_->reader); }

Result<std::optional<Reply>> ReplyParser::feed(Bytes in) {
  redisReader* const reader = state_->reader;
  if (in.size() > kReplyBytesMax - state_->fed) {
    return malformed("reply longer than " + std::to_string(kReplyBytesMax) + " bytes");
  }
  state_->fed += in.size();
  void* object = nullptr;
  if (::redisReaderFeed(reader, as_text(in).data(), in.size()) != REDIS_OK ||
      ::redisReaderGetReply(reader, &object) != REDIS_OK) {
    if (state_->build.over_limit) {
      return malformed("reply with more than " + std::to_string(kReplyNodesMax) + " elements");
    }
    return malformed(std::string("reply: ") + reader->errstr);
  }
  if (object == nullptr) {
    QSFS_TRY(check_pending());
    return std::optional<Reply>();
  }
  // hiredis may have emptied its buffer already; then nothing follows.
  if (reader->pos < reader->len) return malformed("bytes after the reply");
  return std::optional<Reply>(std::move(state_->build.root));
}

// hiredis waits for the end of a line, or of a bulk of any announced length, for ever. This looks
// at what it waits for: the bytes from its cursor on, which begin after the type byte.
Status ReplyParser::check_pending() const {
  const redisReader& reader = *state_->reader;
  if (reader.ridx < 0 || reader.pos >= reader.len) return {};
  const std::string_view pending(reader.buf + reader.pos, reader.len - reader.pos);
  if (reader.rstack[reader.ridx].type != REDIS_REPLY_STRING) {
    if (pending.size() <= kReplyLineLenMax) return {};
    return malformed("reply line longer than " + std::to_string(kReplyLineLenMax) + " bytes");
  }
  // The longest length that is allowed has 7 digits.
  constexpr std::size_t kLengthLineMax = 16;
  const std::size_t end = pending.substr(0, kLengthLineMax).find(kEndOfLine);
  if (end == std::string_view::npos) {
    if (pending.size() < kLengthLineMax) return {};
    return malformed("bulk length without an end");
  }
  std::uint64_t len = 0;
  const auto [stop, error] = std::from_chars(pending.data(), pending.data() + end, len);
  if (error != std::errc{} || stop != pending.data() + end || len > kReplyBytesMax) {
    return malformed("bulk length \"" + std::string(pending.substr(0, end)) + "\" inside a reply");
  }
  return {};
}

Result<std::size_t> BulkReplyReader::feed(Bytes in) {
  std::size_t used = 0;
  while (used < in.size() && phase_ != Phase::kDone) {
    const Bytes rest = in.subspan(used);
    switch (phase_) {
      case Phase::kHeader: {
        QSFS_ASSIGN(const std::size_t taken, feed_header(rest));
        used += taken;
        break;
      }
      case Phase::kPayload: {
        const MutableBytes space = payload_space();
        const std::size_t len = std::min(space.size(), rest.size());
        std::memcpy(space.data(), rest.data(), len);
        payload_filled(len);
        used += len;
        break;
      }
      case Phase::kTrailer:
        if (as_text(rest).front() != kEndOfLine[trailer_len_]) {
          return malformed("bulk without its end of line");
        }
        ++used;
        if (++trailer_len_ == kEndOfLine.size()) phase_ = Phase::kDone;
        break;
      case Phase::kDone:
        break;
    }
  }
  return used;
}

Result<std::size_t> BulkReplyReader::feed_header(Bytes in) {
  std::size_t used = 0;
  for (const char c : as_text(in)) {
    if (header_len_ == header_.size()) return malformed("bulk length too long");
    header_[header_len_++] = c;
    ++used;
    if (c != '\n') continue;
    QSFS_TRY(parse_header());
    break;
  }
  return used;
}

Status BulkReplyReader::parse_header() {
  const std::string_view line(header_.data(), header_len_);
  const std::string quoted = "bulk length line of " + std::to_string(line.size()) + " bytes";
  if (!line.starts_with('$') || !line.ends_with(kEndOfLine)) return malformed(quoted);
  const std::string_view digits = line.substr(1, line.size() - 1 - kEndOfLine.size());
  if (digits == "-1") {
    reply_.kind = Reply::Kind::kNil;
    phase_ = Phase::kDone;
    return {};
  }
  std::uint64_t len = 0;
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), len);
  const bool has_leading_zero = digits.size() > 1 && digits.front() == '0';
  if (error != std::errc{} || stop != digits.data() + digits.size() || has_leading_zero) {
    return malformed(quoted + " is not a number");
  }
  if (len > kValueLenMax) {
    return malformed("bulk of " + std::to_string(len) + " bytes, at most " +
                     std::to_string(kValueLenMax) + " are allowed");
  }
  reply_.kind = Reply::Kind::kBulk;
  reply_.bytes.resize(len);
  phase_ = len == 0 ? Phase::kTrailer : Phase::kPayload;
  return {};
}

MutableBytes BulkReplyReader::payload_space() {
  if (phase_ != Phase::kPayload) return {};
  return MutableBytes(reply_.bytes).subspan(filled_);
}

void BulkReplyReader::payload_filled(std::size_t len) {
  QSFS_CHECK(phase_ == Phase::kPayload && len <= reply_.bytes.size() - filled_);
  filled_ += len;
  if (filled_ == reply_.bytes.size()) phase_ = Phase::kTrailer;
}

Reply BulkReplyReader::take() {
  QSFS_CHECK(is_done());
  return std::move(reply_);
}

}  // namespace qsfs::zdb
