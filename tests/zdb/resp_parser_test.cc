#include "zdb/resp_parser.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace qsfs::zdb {
namespace {

using Request = std::vector<std::string>;

struct Outcome {
  std::vector<Request> requests;
  std::string error;  // Empty: none.
  bool operator==(const Outcome&) const = default;
};

std::string encode(const Request& request) {
  std::string text = "*" + std::to_string(request.size()) + "\r\n";
  for (const std::string& argument : request) {
    text += "$" + std::to_string(argument.size()) + "\r\n" + argument + "\r\n";
  }
  return text;
}

Request copy_arguments(const RequestParser& parser) {
  Request request;
  for (const Bytes argument : parser.arguments()) request.emplace_back(as_text(argument));
  return request;
}

// Gives the input in pieces of the lengths in `cuts`, repeated; a piece may hold several requests.
// With `direct`, payloads are written in place as a socket would.
Outcome parse_cut(std::string_view input, const std::vector<std::size_t>& cuts, bool direct,
                  ByteBudget* budget = nullptr) {
  RequestParser parser(budget);
  Outcome outcome;
  std::size_t cut = 0;
  while (!input.empty()) {
    const std::size_t len = cuts.empty() ? input.size() : cuts[cut++ % cuts.size()];
    Bytes piece = as_bytes(input.substr(0, len));
    input.remove_prefix(piece.size());
    while (!piece.empty()) {
      if (direct) {
        const MutableBytes space = parser.payload_space();
        const std::size_t direct_len = std::min(space.size(), piece.size());
        std::copy_n(piece.begin(), direct_len, space.begin());
        parser.payload_filled(direct_len);
        piece = piece.subspan(direct_len);
        if (piece.empty()) break;
      }
      const RequestParser::Progress progress = parser.feed(piece);
      piece = piece.subspan(progress.consumed);
      if (progress.state == RequestParser::State::kRequest) {
        outcome.requests.push_back(copy_arguments(parser));
      } else if (progress.state == RequestParser::State::kError) {
        outcome.error = parser.error_text();
        return outcome;
      }
    }
  }
  return outcome;
}

Outcome parse(std::string_view input) { return parse_cut(input, {}, /*direct=*/false); }

TEST(RespParserTest, ReadsARequest) {
  const Outcome outcome = parse("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n");
  EXPECT_EQ(outcome.error, "");
  EXPECT_EQ(outcome.requests, (std::vector<Request>{{"SET", "key", "value"}}));
}

TEST(RespParserTest, ReadsPipelinedRequests) {
  const Outcome outcome = parse(encode({"PING"}) + encode({"GET", "a"}) + encode({"PING"}));
  EXPECT_EQ(outcome.requests, (std::vector<Request>{{"PING"}, {"GET", "a"}, {"PING"}}));
}

TEST(RespParserTest, StopsBehindOneRequest) {
  RequestParser parser;
  const std::string one = encode({"PING"});
  const RequestParser::Progress progress = parser.feed(as_bytes(one + one));
  EXPECT_EQ(progress.state, RequestParser::State::kRequest);
  EXPECT_EQ(progress.consumed, one.size());
}

TEST(RespParserTest, ReadsEmptyAndBinaryArguments) {
  const Request request{"SET", "", std::string("\0\r\n*1\r\n$", 9)};
  EXPECT_EQ(parse(encode(request)).requests, (std::vector<Request>{request}));
}

TEST(RespParserTest, TellsWhetherARequestIsHalfSent) {
  RequestParser parser;
  EXPECT_FALSE(parser.in_request());
  parser.feed(as_bytes("*"));
  EXPECT_TRUE(parser.in_request());
  parser.feed(as_bytes("1\r\n$4\r\nPING\r"));
  EXPECT_TRUE(parser.in_request());
  parser.feed(as_bytes("\n"));
  EXPECT_FALSE(parser.in_request());
  parser.finish_request();
  EXPECT_FALSE(parser.in_request());
}

struct BadRequest {
  std::string input;
  std::string error;
};

class RespParserErrorTest : public testing::TestWithParam<BadRequest> {};

TEST_P(RespParserErrorTest, GivesTheText) {
  const Outcome outcome = parse(GetParam().input);
  EXPECT_EQ(outcome.error, GetParam().error);
  EXPECT_TRUE(outcome.requests.empty());
}

INSTANTIATE_TEST_SUITE_P(
    All, RespParserErrorTest,
    testing::Values(
        BadRequest{"PING\r\n", "Malformed request, array expected"},
        BadRequest{"\r\n", "Malformed request, array expected"},
        BadRequest{"$4\r\nPING\r\n", "Malformed request, array expected"},
        BadRequest{"*x\r\n", "Malformed request, array expected"},
        BadRequest{"*\r\n", "Malformed request, array expected"},
        BadRequest{"*1\n", "Malformed request, array expected"},
        BadRequest{"*1 \r\n", "Malformed request, array expected"},
        BadRequest{"*00000000000000000000000000000001\r\n", "Malformed request, array expected"},
        BadRequest{"*99999999999999999999\r\n", "Malformed request, array expected"},
        BadRequest{"*0\r\n", "Missing arguments"}, BadRequest{"*-1\r\n", "Missing arguments"},
        BadRequest{"*1025\r\n", "Too many arguments"},
        BadRequest{"*2147483648\r\n", "Too many arguments"},
        BadRequest{"*1\r\n+PING\r\n", "Malformed query string"},
        BadRequest{"*1\r\n:1\r\n", "Malformed query string"},
        BadRequest{"*1\r\n$-1\r\n", "Malformed query string"},
        BadRequest{"*1\r\n$\r\n", "Malformed query string"},
        BadRequest{"*1\r\n$4x\r\n", "Malformed query string"},
        BadRequest{"*1\r\n$4\r\nPINGxx", "Malformed query string"},
        BadRequest{"*1\r\n$0000000000000000000000000000004\r\n", "Malformed query string"},
        BadRequest{"*1\r\n$8388609\r\n", "Payload too big"},
        BadRequest{"*1\r\n$4294967300\r\n", "Payload too big"}));

TEST(RespParserTest, TellsAWrongMarkerBeforeTheEndOfItsLine) {
  EXPECT_EQ(parse("G").error, "Malformed request, array expected");
  EXPECT_EQ(parse("*1\r\n+").error, "Malformed query string");
}

TEST(RespParserTest, KeepsAnswersBeforeAnError) {
  const Outcome outcome = parse(encode({"PING"}) + "*0\r\n");
  EXPECT_EQ(outcome.requests, (std::vector<Request>{{"PING"}}));
  EXPECT_EQ(outcome.error, "Missing arguments");
}

TEST(RespParserTest, TakesTheMostArguments) {
  const Request request(kRequestArgumentsMax, "k");
  EXPECT_EQ(parse(encode(request)).requests, (std::vector<Request>{request}));
}

TEST(RespParserTest, TakesTheLargestArgument) {
  const Request request{"SET", "k", std::string(kArgumentLenMax, 'v')};
  EXPECT_EQ(parse(encode(request)).requests, (std::vector<Request>{request}));
}

TEST(RespParserTest, RefusesARequestOverTheTotalLimit) {
  std::string input = "*3\r\n";
  const std::string largest(kArgumentLenMax, 'v');
  for (int i = 0; i < 2; ++i) input += "$8388608\r\n" + largest + "\r\n";
  EXPECT_EQ(parse(input + "$0\r\n").error, "");
  EXPECT_EQ(parse(input + "$1\r\n").error, "Payload too big");
}

TEST(RespParserTest, FailsWhereTheBudgetIsUsedUp) {
  ByteBudget budget(100 * kKiB);
  const std::string fits = encode({"SET", "k", std::string(150 * kKiB, 'v')});
  const std::string too_much = encode({"SET", "k", std::string(200 * kKiB, 'v')});
  EXPECT_EQ(parse_cut(fits, {}, /*direct=*/false, &budget).requests.size(), 1U);
  EXPECT_EQ(parse_cut(too_much, {}, /*direct=*/false, &budget).error, "Internal memory error");
  EXPECT_EQ(budget.used_bytes(), 0U);
}

TEST(RespParserTest, ReturnsTheBudgetWhenARequestIsFinished) {
  ByteBudget budget(1 * kMiB);
  RequestParser parser(&budget);
  const std::string input = encode({"SET", "k", std::string(150 * kKiB, 'v')});
  parser.feed(as_bytes(input).first(100));
  EXPECT_GT(budget.used_bytes(), 0U);
  parser.feed(as_bytes(input).subspan(100));
  parser.finish_request();
  EXPECT_EQ(budget.used_bytes(), 0U);
}

TEST(RespParserTest, OffersNoSpaceOutsideOfAPayload) {
  RequestParser parser;
  EXPECT_TRUE(parser.payload_space().empty());
  parser.feed(as_bytes("*1\r\n$4\r\nPI"));
  EXPECT_EQ(parser.payload_space().size(), 2U);
  parser.feed(as_bytes("NG"));
  EXPECT_TRUE(parser.payload_space().empty());
}

RC_GTEST_PROP(RespParserProperty, ReadsWhatWasEncoded, ()) {
  std::string input;
  const auto requests = *rc::gen::container<std::vector<Request>>(
      rc::gen::nonEmpty(rc::gen::container<Request>(rc::gen::arbitrary<std::string>())));
  for (const Request& request : requests) input += encode(request);
  const Outcome outcome = parse(input);
  RC_ASSERT(outcome.error.empty());
  RC_ASSERT(outcome.requests == requests);
}

RC_GTEST_PROP(RespParserProperty, DoesNotDependOnHowBytesAreCut, ()) {
  // Mostly valid, with a damaged byte now and then, and an end anywhere.
  const auto requests = *rc::gen::container<std::vector<Request>>(
      rc::gen::nonEmpty(rc::gen::container<Request>(rc::gen::arbitrary<std::string>())));
  std::string input;
  for (const Request& request : requests) input += encode(request);
  if (!input.empty() && *rc::gen::arbitrary<bool>()) {
    input[*rc::gen::inRange<std::size_t>(0, input.size())] = *rc::gen::arbitrary<char>();
  }
  input.resize(*rc::gen::inRange<std::size_t>(0, input.size() + 1));
  const auto cuts = *rc::gen::nonEmpty(
      rc::gen::container<std::vector<std::size_t>>(rc::gen::inRange<std::size_t>(1, 9)));
  const Outcome whole = parse(input);
  RC_ASSERT(parse_cut(input, cuts, /*direct=*/false) == whole);
  RC_ASSERT(parse_cut(input, cuts, /*direct=*/true) == whole);
}

}  // namespace
}  // namespace qsfs::zdb
