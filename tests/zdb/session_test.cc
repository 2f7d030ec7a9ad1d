#include "zdb/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "tests/zdb/fake_engine.h"
#include "zdb/password.h"

namespace qsfs::zdb {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// One server with any number of clients, without sockets.
class SessionTest : public testing::Test {
 protected:
  // Starts the server anew.
  void serve(ServiceOptions options, NamespaceMode default_mode = NamespaceMode::kUser) {
    session_.reset();
    options.default_mode = default_mode;
    engine_ = std::make_unique<FakeEngine>(default_mode);
    service_ = std::make_unique<Service>(options, *engine_, system_clock(), random_);
    session_ = std::make_unique<Session>(*service_);
  }
  void SetUp() override { serve({}); }

  static std::string run_on(Session& session, const std::vector<std::string>& words,
                            Session::After* after = nullptr) {
    OutputQueue out;
    ReplyWriter reply(out);
    std::vector<Bytes> arguments;
    for (const std::string& word : words) arguments.push_back(as_bytes(word));
    const Session::After what = session.execute(arguments, reply);
    if (after != nullptr) *after = what;
    std::string text;
    while (!out.empty()) {
      std::array<iovec, 1> piece;
      out.peek(piece);
      text.append(static_cast<const char*>(piece[0].iov_base), piece[0].iov_len);
      out.consume(piece[0].iov_len);
    }
    return text;
  }
  // The reply of the first client to one command.
  std::string run(const std::vector<std::string>& words) { return run_on(*session_, words); }

  struct Line {
    std::vector<std::string> words;
    std::string reply;
  };
  void expect(std::initializer_list<Line> dialogue) {
    for (const Line& line : dialogue) {
      EXPECT_EQ(run(line.words), line.reply + "\r\n") << testing::PrintToString(line.words);
    }
  }

  // The text behind `field: ` in NSINFO or INFO; nullopt when there is no such line.
  static std::optional<std::string> field(const std::string& text, const std::string& name) {
    const std::size_t at = text.find("\n" + name + ": ");
    if (at == std::string::npos) return std::nullopt;
    const std::size_t start = at + name.size() + 3;
    return text.substr(start, text.find('\n', start) - start);
  }

  SeededRandom random_{1};
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<Session> session_;
};

const std::string kDenied = "-Permission denied";

TEST_F(SessionTest, AnswersSystemCommands) {
  expect({{{"PING"}, "+PONG"}, {{"ping"}, "+PONG"}, {{"Ping", "hello"}, "+PONG"}});
  EXPECT_THAT(run({"TIME"}), StartsWith("*2\r\n$10\r\n"));
}

TEST_F(SessionTest, RefusesUnknownCommandsAndPrefixes) {
  for (const char* name : {"P", "G", "", "*", "PINGX", "FLUSHDB", "HELLO", "CLIENT", "KSCAN",
                           "MIRROR", "NS", "CONFIG", "STOP"}) {
    EXPECT_EQ(run({name}), "-Command not supported\r\n") << name;
  }
}

TEST_F(SessionTest, StoresReadsAndRemovesKeys) {
  expect({{{"SET", "k", "value"}, "$1\r\nk"},
          {{"GET", "k"}, "$5\r\nvalue"},
          {{"SET", "k", "value"}, "$-1"},
          {{"SETX", "k", "other"}, "$1\r\nk"},
          {{"GET", "k"}, "$5\r\nother"},
          {{"LENGTH", "k"}, ":5"},
          {{"EXISTS", "k"}, ":1"},
          {{"CHECK", "k"}, ":1"},
          {{"DBSIZE"}, ":1"},
          {{"DEL", "k"}, "+OK"},
          {{"DEL", "k"}, "-Key not found"},
          {{"GET", "k"}, "$-1"},
          {{"LENGTH", "k"}, "$-1"},
          {{"EXISTS", "k"}, ":0"},
          {{"CHECK", "k"}, "$-1"},
          {{"DBSIZE"}, ":0"}});
}

TEST_F(SessionTest, KeepsEmptyAndBinaryValues) {
  const std::string key("\0\r\n", 3);
  expect({{{"SET", key, ""}, "$3\r\n" + key}, {{"GET", key}, "$0\r\n"}, {{"EXISTS", key}, ":1"}});
}

TEST_F(SessionTest, SendsLargeValuesWhole) {
  const std::string value(300000, 'v');
  expect({{{"SET", "k", value}, "$1\r\nk"}, {{"GET", "k"}, "$300000\r\n" + value}});
}

TEST_F(SessionTest, ChecksArguments) {
  const std::string longest(255, 'k');
  const std::string too_long(256, 'k');
  expect({{{"SET", "k"}, "-Unexpected arguments"},
          {{"SET", "k", "v", "1", "2"}, "-Unexpected arguments"},
          {{"SET", "", "v"}, "-Invalid argument, key needed"},
          {{"SET", longest, "v"}, "$255\r\n" + longest},
          {{"SET", too_long, "v"}, "-Key too large"},
          {{"GET"}, "-Unexpected arguments"},
          {{"GET", "a", "b"}, "-Unexpected arguments"},
          {{"GET", ""}, "-Invalid argument"},
          {{"GET", longest}, "$1\r\nv"},
          {{"GET", too_long}, "-Invalid key"},
          {{"DEL"}, "-Unexpected arguments"},
          {{"DEL", ""}, "-Invalid argument"},
          {{"DEL", too_long}, "-Invalid key"},
          {{"EXISTS", ""}, "-Invalid argument"},
          {{"EXISTS", too_long}, "-Invalid key"},
          {{"LENGTH", too_long}, "-Invalid key"},
          {{"CHECK", too_long}, "-Invalid key"},
          {{"MGET"}, "-Invalid arguments"},
          {{"MGET", "a", too_long}, "-Invalid key"},
          {{"DBSIZE", "x"}, "-Unexpected arguments"},
          {{"NSINFO"}, "-Unexpected arguments"},
          {{"NSSET", "ns", "maxsize"}, "-Unexpected arguments"},
          {{"SELECT"}, "-Missing arguments"},
          {{"SELECT", ""}, "-Invalid argument"}});
}

TEST_F(SessionTest, ReadsManyKeysAtOnce) {
  run({"SET", "a", "1"});
  run({"SET", "b", "22"});
  expect({{{"MGET", "a", "none", "b", ""}, "*4\r\n$1\r\n1\r\n$-1\r\n$2\r\n22\r\n$-1"}});
}

TEST_F(SessionTest, PutsAnErrorIntoTheArrayOfMget) {
  run({"SET", "a", "1"});
  engine_->fake_namespace("default")->fail_next(Errc::kCorruption);
  expect({{{"MGET", "a", "a"}, "*2\r\n-Internal Error\r\n$1\r\n1"}});
}

TEST_F(SessionTest, BoundsTheReplyOfMget) {
  const std::string value(8 * kMiB, 'v');
  run({"SET", "k", value});
  std::vector<std::string> words(13, "k");
  words[0] = "MGET";
  const std::string text = run(words);
  EXPECT_LT(text.size(), 80 * kMiB);
  EXPECT_THAT(text.substr(text.size() - 50), HasSubstr("-Internal memory error\r\n"));
}

TEST_F(SessionTest, TakesATimestampFromAdministratorsOnly) {
  expect({{{"SET", "k", "v", "1500000000"}, "$1\r\nk"},
          {{"SET", "k", "v2", "soon"}, "-Invalid argument"},
          {{"DEL", "none", "1500000000"}, "-Key not found"}});
  EXPECT_THAT(run({"SCAN"}), HasSubstr(":1500000000\r\n"));
  serve({.admin_password = "secret"});
  expect({{{"SET", "k", "v", "1500000000"}, kDenied},
          {{"SET", "k", "v"}, "$1\r\nk"},
          {{"DEL", "k", "1500000000"}, kDenied}});
}

TEST_F(SessionTest, ReportsFailuresOfTheEngine) {
  run({"SET", "k", "v"});
  FakeNamespace& failing = *engine_->fake_namespace("default");
  const auto expect_failure = [&](const std::vector<std::string>& words, const std::string& text) {
    failing.fail_next(Errc::kIo);
    EXPECT_EQ(run(words), text + "\r\n") << testing::PrintToString(words);
  };
  expect_failure({"SET", "k", "w"}, "-Cannot write data right now");
  expect_failure({"GET", "k"}, "-Internal Error");
  expect_failure({"DEL", "k"}, "-Cannot delete key (data)");
  expect_failure({"EXISTS", "k"}, "-Internal Error");
  expect_failure({"LENGTH", "k"}, "-Internal Error");
  expect_failure({"CHECK", "k"}, "-Internal Error");
  expect_failure({"SCAN"}, "-Internal Error");
  failing.fail_next(Errc::kNoSpace);
  expect({{{"SET", "k", "w"}, "-No space left on this namespace"}, {{"GET", "k"}, "$1\r\nv"}});
}

TEST_F(SessionTest, ReportsTheVerdictOfCheck) {
  run({"SET", "k", "v"});
  FakeNamespace& checked = *engine_->fake_namespace("default");
  checked.set_check_verdict(CheckVerdict::kCorrupt);
  expect({{{"CHECK", "k"}, ":0"}});
  checked.set_check_verdict(CheckVerdict::kUnreadable);
  expect({{{"CHECK", "k"}, ":-1"}});
}

TEST_F(SessionTest, AllocatesSequentialIds) {
  serve({.mixed_modes = false}, NamespaceMode::kSequential);
  const std::string id0(8, '\0');
  const std::string id2("\2\0\0\0\0\0\0\0", 8);
  expect(
      {{{"SET", "", "a"}, "$8\r\n" + id0},
       {{"SET", id0, "b"}, "$8\r\n" + id0},
       {{"SET", "", "c"}, "$8\r\n" + id2},
       {{"SET", std::string("\7\0\0\0\0\0\0\0", 8), "x"}, "-Invalid key, only update authorized"},
       {{"GET", id0}, "$1\r\nb"},
       {{"DEL", id0}, "+OK"},
       {{"SET", id0, "x"}, "-Invalid key, only update authorized"}});
  EXPECT_EQ(field(run({"NSINFO", "default"}), "next_internal_id"), "0x300000000000000");
  EXPECT_EQ(field(run({"NSINFO", "default"}), "mode"), "sequential");
}

TEST_F(SessionTest, ScansPageByPage) {
  expect({{{"SCAN"}, "-No more data"},
          {{"SCAN", "short"}, "-Invalid key format"},
          {{"SCAN", ""}, "-Invalid key format"},
          {{"SCAN", "a", "b"}, "-Unexpected arguments"}});
  constexpr int kKeys = 1500;
  for (int i = 0; i < kKeys; ++i) run({"SET", "key" + std::to_string(i), "v", "77"});
  const std::string first = run({"SCAN"});
  EXPECT_THAT(first, StartsWith("*2\r\n$17\r\n"));
  EXPECT_THAT(first.substr(28), StartsWith("*1000\r\n*3\r\n$4\r\nkey0\r\n:1\r\n:77\r\n"));
  const std::string second = run({"SCANX", first.substr(9, 17)});
  EXPECT_THAT(second.substr(28), StartsWith("*500\r\n*3\r\n$7\r\nkey1000\r\n"));
  expect({{{"SCAN", second.substr(9, 17)}, "-No more data"}});
}

TEST_F(SessionTest, ScansPastPagesWithoutEntries) {
  run({"SET", "key", "v", "77"});
  const std::string entry = "*1\r\n*3\r\n$3\r\nkey\r\n:1\r\n:77\r\n";
  engine_->fake_namespace("default")->give_empty_pages(3);
  EXPECT_EQ(run({"SCAN"}).substr(28), entry);
  engine_->fake_namespace("default")->give_empty_pages(1000);
  const std::string empty = run({"SCAN"});
  EXPECT_EQ(empty.substr(28), "*0\r\n");
  engine_->fake_namespace("default")->give_empty_pages(0);
  EXPECT_EQ(run({"SCAN", empty.substr(9, 17)}).substr(28), entry);
}

TEST_F(SessionTest, MakesListsAndRemovesNamespaces) {
  expect({{{"NSNEW", "one"}, "+OK"},
          {{"NSNEW", "one"}, "-This namespace is not available"},
          {{"NSNEW", "default"}, "-This name is not allowed"},
          {{"NSNEW", "."}, "-This name is not allowed"},
          {{"NSNEW", ".."}, "-This name is not allowed"},
          {{"NSNEW", "a/b"}, "-This name is not allowed"},
          {{"NSNEW", "a\nb"}, "-This name is not allowed"},
          {{"NSNEW", std::string(128, 'n')}, "+OK"},
          {{"NSNEW", std::string(129, 'n')}, "-Namespace too long"},
          {{"NSDEL", std::string(128, 'n')}, "+OK"},
          {{"NSLIST"}, "*2\r\n$7\r\ndefault\r\n$3\r\none"},
          {{"SELECT", "one"}, "+OK"},
          {{"NSDEL", "one"}, "-Cannot remove namespace you're currently using."},
          {{"NSDEL", "default"}, "-Cannot remove default namespace"},
          {{"NSDEL", "none"}, "-This namespace doesn't exists"},
          {{"SELECT", "default"}, "+OK"},
          {{"NSDEL", "one"}, "+OK"},
          {{"SELECT", "one"}, "-Namespace not found"},
          {{"SELECT", std::string(129, 'n')}, "-Namespace too long"},
          {{"NSINFO", "one"}, "-Namespace not found"}});
}

TEST_F(SessionTest, DisconnectsClientsOfARemovedNamespace) {
  run({"NSNEW", "gone"});
  Session other(*service_);
  run_on(other, {"SELECT", "gone"});
  run({"NSDEL", "gone"});
  Session::After after = Session::After::kContinue;
  EXPECT_EQ(run_on(other, {"PING"}, &after),
            "-Your active namespace is not available anymore (probably removed).\r\n");
  EXPECT_EQ(after, Session::After::kClose);
}

TEST_F(SessionTest, KeepsNamespacesApart) {
  run({"NSNEW", "one"});
  expect({{{"SET", "k", "default"}, "$1\r\nk"},
          {{"SELECT", "one"}, "+OK"},
          {{"GET", "k"}, "$-1"},
          {{"SET", "k", "one"}, "$1\r\nk"},
          {{"SELECT", "default"}, "+OK"},
          {{"GET", "k"}, "$7\r\ndefault"}});
}

TEST_F(SessionTest, AsksForThePasswordOfANamespace) {
  run({"NSNEW", "ns"});
  expect({{{"SELECT", "ns", "ignored"}, "+OK"},
          {{"SET", "k", "v"}, "$1\r\nk"},
          {{"NSSET", "ns", "password", "secret"}, "+OK"},
          {{"SELECT", "ns", "wrong!"}, "-Access denied"},
          {{"SELECT", "ns", "secret2"}, "-Access denied"},
          {{"SELECT", "ns", ""}, "-Access denied"},
          {{"SELECT", "ns", std::string(256, 'p')}, "-Password too long"},
          {{"SELECT", "ns", "SECURE", "x", "y"}, "-Too many arguments"},
          {{"SELECT", "ns"}, "+OK"},
          {{"GET", "k"}, "$1\r\nv"},
          {{"SET", "k", "w"}, "-Namespace is in read-only mode"},
          {{"DEL", "k"}, "-Namespace is in read-only mode"},
          {{"SELECT", "ns", "secret"}, "+OK"},
          {{"SET", "k", "w"}, "$1\r\nk"},
          {{"NSSET", "ns", "public", "0"}, "+OK"},
          {{"SELECT", "default"}, "+OK"},
          {{"SELECT", "ns"}, "-Namespace protected and private"},
          {{"DBSIZE"}, ":0"},
          {{"NSSET", "ns", "password", "*"}, "+OK"},
          {{"SELECT", "ns"}, "+OK"},
          {{"SET", "k", "x"}, "$1\r\nk"}});
}

TEST_F(SessionTest, SelectsWithAChallenge) {
  run({"NSNEW", "ns"});
  run({"NSSET", "ns", "password", "secret"});
  const std::string none(40, '0');
  expect({{{"SELECT", "ns", "SECURE", none},
           "-No CHALLENGE requested, secure authentication not available"},
          {{"SELECT", "ns", "OTHER", none}, "-Only SECURE extra method supported"}});
  const std::string challenge = run({"AUTH", "SECURE", "CHALLENGE"}).substr(1, 16);
  const std::string hash = hash_password(challenge, "secret");
  expect({{{"SELECT", "ns", "SECURE", "short"}, "-Invalid hash length"},
          {{"SELECT", "ns", "SECURE", none}, "-Access denied"},
          {{"SELECT", "ns", "SECURE", hash}, "+OK"},
          {{"SET", "k", "v"}, "$1\r\nk"},
          {{"SELECT", "ns", "secure", hash}, "+OK"}});
}

TEST_F(SessionTest, KeepsADefaultNamespaceWithAPasswordFromStrangers) {
  run({"NSSET", "default", "password", "secret"});
  session_ = std::make_unique<Session>(*service_);
  expect({{{"SET", "k", "v"}, "-Namespace is in read-only mode"}, {{"GET", "k"}, "$-1"}});
  run({"NSSET", "default", "public", "0"});
  session_ = std::make_unique<Session>(*service_);
  expect({{{"GET", "k"}, "-Namespace protected and private"},
          {{"PING"}, "+PONG"},
          {{"SELECT", "default", "secret"}, "+OK"},
          {{"SET", "k", "v"}, "$1\r\nk"}});
}

TEST_F(SessionTest, AuthenticatesAdministrators) {
  expect({{{"AUTH", "any"}, "-Authentication disabled"},
          {{"AUTH", "SECURE", std::string(40, '0')}, "-Authentication disabled"}});
  serve({.admin_password = "secret"});
  expect({{{"NSNEW", "one"}, kDenied},
          {{"NSDEL", "one"}, kDenied},
          {{"NSSET", "one", "worm", "1"}, kDenied},
          {{"NSNEW"}, kDenied},
          {{"AUTH"}, "-Unexpected arguments"},
          {{"AUTH", "a", "b", "c"}, "-Unexpected arguments"},
          {{"AUTH", ""}, "-Invalid argument"},
          {{"AUTH", "Secret"}, "-Access denied"},
          {{"AUTH", std::string(129, 's')}, "-Password too long"},
          {{"NSNEW", "one"}, kDenied},
          {{"AUTH", "secret"}, "+OK"},
          {{"NSNEW", "one"}, "+OK"},
          {{"NSDEL", "one"}, "+OK"}});
}

TEST_F(SessionTest, AuthenticatesWithAChallengeOnce) {
  serve({.admin_password = "secret"});
  const std::string none(40, '0');
  expect(
      {{{"AUTH", "OTHER", none}, "-Only SECURE extra method supported"},
       {{"AUTH", "SECURE", none}, "-No CHALLENGE requested, secure authentication not available"}});
  std::string challenge = run({"AUTH", "SECURE", "CHALLENGE"}).substr(1, 16);
  expect({{{"AUTH", "SECURE", "short"}, "-Invalid hash length"},
          {{"AUTH", "SECURE", none}, "-Access denied"},
          {{"AUTH", "SECURE", hash_password(challenge, "secret")},
           "-No CHALLENGE requested, secure authentication not available"}});
  challenge = run({"auth", "secure", "challenge"}).substr(1, 16);
  expect(
      {{{"AUTH", "SECURE", hash_password(challenge, "secret")}, "+OK"}, {{"NSNEW", "n"}, "+OK"}});
}

TEST_F(SessionTest, HashesAsTheProtocolSays) {
  // printf 0123456789abcdef:secret | sha1sum
  EXPECT_EQ(hash_password("0123456789abcdef", "secret"),
            "5d068867c74ee749da2970433fb5ebd8f17d3016");
}

TEST_F(SessionTest, LimitsTheSizeOfANamespace) {
  run({"NSNEW", "ns"});
  expect({{{"NSSET", "ns", "maxsize", "10"}, "+OK"},
          {{"SELECT", "ns"}, "+OK"},
          {{"SET", "k", "0123456789"}, "$1\r\nk"},
          {{"SET", "l", "x"}, "-No space left on this namespace"}});
  EXPECT_EQ(field(run({"NSINFO", "ns"}), "space_available"), "0");
  run({"NSSET", "ns", "maxsize", "5"});
  EXPECT_EQ(field(run({"NSINFO", "ns"}), "space_available"), "0");
  run({"NSSET", "ns", "maxsize", "12"});
  EXPECT_EQ(field(run({"NSINFO", "ns"}), "space_available"), "2");
  run({"NSSET", "ns", "maxsize", "0"});
  EXPECT_EQ(field(run({"NSINFO", "ns"}), "space_available"), std::nullopt);
}

TEST_F(SessionTest, LocksAndFreezes) {
  run({"NSNEW", "ns"});
  run({"SELECT", "ns"});
  run({"SET", "k", "v"});
  const std::string frozen = "-Namespace is temporarily frozen (read-write disabled)";
  const std::string locked = "-Namespace is temporarily locked (read-only)";
  expect({{{"NSSET", "ns", "lock", "1"}, "+OK"},
          {{"SET", "k", "w"}, locked},
          {{"DEL", "k"}, locked},
          {{"GET", "k"}, "$1\r\nv"},
          {{"NSSET", "ns", "freeze", "1"}, "+OK"},
          {{"SET", "k", "w"}, frozen},
          {{"GET", "k"}, frozen},
          {{"SCAN"}, frozen},
          {{"EXISTS", "k"}, frozen},
          {{"PING"}, "+PONG"}});
  EXPECT_EQ(field(run({"NSINFO", "ns"}), "locked"), "yes");
  expect({{{"NSSET", "ns", "lock", "0"}, "+OK"}, {{"SET", "k", "w"}, "$1\r\nk"}});
  EXPECT_EQ(field(run({"NSINFO", "ns"}), "locked"), "no");
}

TEST_F(SessionTest, WritesOnceInWormMode) {
  run({"NSNEW", "ns"});
  run({"SELECT", "ns"});
  run({"SET", "k", "v"});
  expect({{{"NSSET", "ns", "worm", "1"}, "+OK"},
          {{"SET", "k", "w"}, "-Namespace is protected by worm mode"},
          {{"DEL", "k"}, "-Cannot delete a key when namespace is in worm mode"},
          {{"SET", "l", "v"}, "$1\r\nl"}});
}

TEST_F(SessionTest, ChangesTheModeOfUnusedNamespaces) {
  run({"NSNEW", "ns"});
  expect({{{"NSSET", "ns", "mode", "seq"}, "+OK"},
          {{"SELECT", "ns"}, "+OK"},
          {{"SET", "", "v"}, "$8\r\n" + std::string(8, '\0')},
          {{"NSSET", "ns", "mode", "user"}, "-Cannot change mode of used namespace"},
          {{"NSSET", "ns", "mode", "other"}, "-Invalid property value (expected: user, seq)"}});
  serve({.mixed_modes = false});
  run({"NSNEW", "ns"});
  expect({{{"NSSET", "ns", "mode", "seq"},
           "-This server instance is configured to use a single runtime mode"}});
}

TEST_F(SessionTest, ChecksProperties) {
  run({"NSNEW", "ns"});
  expect({{{"NSSET", "none", "worm", "1"}, "-Namespace not found"},
          {{"NSSET", "default", "maxsize", "1"}, "-Cannot update default namespace"},
          {{"NSSET", "ns", "colour", "1"}, "-Invalid property"},
          {{"NSSET", "ns", "MAXSIZE", "1"}, "-Invalid property"},
          {{"NSSET", "ns", "maxsize", "many"}, "-Invalid value"},
          {{"NSSET", "ns", "maxsize", "-1"}, "-Invalid value"},
          {{"NSSET", "ns", "worm", "yes"}, "-Invalid value"},
          {{"NSSET", "ns", "password", std::string(64, 'p')}, "-Invalid value"},
          {{"NSSET", "ns", "password", ""}, "-Invalid argument"}});
}

TEST_F(SessionTest, DescribesANamespace) {
  run({"NSNEW", "ns"});
  run({"SELECT", "ns"});
  run({"SET", "k", std::string(1 << 20, 'v')});
  run({"NSSET", "ns", "maxsize", "2097152"});
  const std::string text = run({"NSINFO", "ns"});
  EXPECT_THAT(text, HasSubstr("\r\n# namespace\n"
                              "name: ns\n"
                              "entries: 1\n"
                              "public: yes\n"
                              "worm: no\n"
                              "locked: no\n"
                              "password: no\n"
                              "data_size_bytes: 1048576\n"
                              "data_size_mb: 1.00\n"
                              "data_limits_bytes: 2097152\n"
                              "index_size_bytes: 0\n"
                              "index_size_kb: 0.00\n"
                              "next_internal_id: 0x00000000\n"
                              "mode: userkey\n"
                              "stats_index_io_errors: 0\n"
                              "stats_index_io_error_last: 0\n"
                              "stats_index_faults: 0\n"
                              "stats_data_io_errors: 0\n"
                              "stats_data_io_error_last: 0\n"
                              "stats_data_faults: 0\n"
                              "space_available: 1048576\n"
                              "index_disk_freespace_bytes: 4294967296\n"
                              "index_disk_freespace_mb: 4096.00\n"
                              "data_disk_freespace_bytes: 4294967296\n"
                              "data_disk_freespace_mb: 4096.00\n"));
  engine_->space_fails = true;
  EXPECT_THAT(run({"NSINFO", "ns"}), Not(HasSubstr("freespace")));
}

TEST_F(SessionTest, NeverTellsPasswords) {
  serve({.admin_password = "admin-secret"});
  run({"AUTH", "admin-secret"});
  run({"NSNEW", "ns"});
  run({"NSSET", "ns", "password", "ns-secret"});
  const std::string text = run({"NSINFO", "ns"}) + run({"INFO"});
  EXPECT_EQ(field(text, "password"), "yes");
  EXPECT_THAT(text, Not(HasSubstr("secret")));
}

TEST_F(SessionTest, DescribesItself) {
  run({"SET", "k", "value"});
  run({"GET", "k"});
  run({"GET", ""});
  const std::string text = run({"INFO"});
  EXPECT_EQ(field(text, "instance_id"), "4711");
  EXPECT_EQ(field(text, "sequential_key_size"), "8");
  EXPECT_EQ(field(text, "data_version"), "3");
  EXPECT_EQ(field(text, "index_version"), "4");
  EXPECT_EQ(field(text, "commands_executed"), "2");
  EXPECT_EQ(field(text, "commands_failed"), "1");
  EXPECT_EQ(field(text, "data_disk_write_bytes"), "5");
  EXPECT_EQ(field(text, "data_disk_read_bytes"), "5");
  EXPECT_TRUE(field(text, "uptime").has_value());
  EXPECT_EQ(field(text, "compactions"), "0");
  EXPECT_EQ(field(text, "scrub_damaged"), "0");
}

}  // namespace
}  // namespace qsfs::zdb
