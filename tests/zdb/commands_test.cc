// Every command on the real engine, byte for byte: what a client gets for what it sends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tests/zdb/engine_fixture.h"
#include "zdb/hooks.h"
#include "zdb/session.h"

namespace qsfs::zdb {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

const std::string kDenied = "-Permission denied";
const std::string kGone = "-Your active namespace is not available anymore (probably removed).";
const std::string kArguments = "-Unexpected arguments";

std::string bulk(const std::string& text) {
  return "$" + std::to_string(text.size()) + "\r\n" + text;
}

class CommandsTest : public testing::Test {
 protected:
  void serve(const ServiceOptions& options) {
    session_.reset();
    service_.reset();
    life_.options.default_mode = options.default_mode;
    life_.close();
    life_.open();
    service_ = std::make_unique<Service>(options, life_.engine(), life_.clock, life_.random);
    session_ = std::make_unique<Session>(*service_);
  }
  void SetUp() override { serve({}); }
  void TearDown() override {
    session_.reset();
    service_.reset();
    life_.close();
  }

  static std::string text_of(OutputQueue& out) {
    std::string text;
    while (!out.empty()) {
      std::array<iovec, 1> piece;
      out.peek(piece);
      text.append(static_cast<const char*>(piece[0].iov_base), piece[0].iov_len);
      out.consume(piece[0].iov_len);
    }
    return text;
  }
  static std::string run_on(Session& session, const std::vector<std::string>& words,
                            Session::After* after = nullptr) {
    OutputQueue out;
    ReplyWriter reply(out);
    std::vector<Bytes> arguments;
    for (const std::string& word : words) arguments.push_back(as_bytes(word));
    const Session::After what = session.execute(arguments, reply);
    if (after != nullptr) *after = what;
    return text_of(out);
  }
  static std::string poll(Session& session, Session::After* after) {
    OutputQueue out;
    ReplyWriter reply(out);
    *after = session.poll_wait(reply);
    return text_of(out);
  }
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
  // The keys of all pages of SCAN or RSCAN, with a space behind each.
  std::string walk(const std::string& command) {
    std::string keys;
    std::vector<std::string> words{command};
    while (true) {
      const std::string page = run(words);
      if (page == "-No more data\r\n") return keys;
      EXPECT_THAT(page, StartsWith("*2\r\n$17\r\n"));
      if (!page.starts_with("*2\r\n$17\r\n")) return keys;
      for (std::size_t at = page.find("\r\n*3\r\n", 28); at != std::string::npos;
           at = page.find("\r\n*3\r\n", at + 1)) {
        const std::size_t start = page.find("\r\n", at + 6) + 2;
        keys += page.substr(start, page.find("\r\n", start) - start) + " ";
      }
      words = {command, page.substr(9, 17)};
    }
  }

  EngineLife life_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<Session> session_;
};

TEST_F(CommandsTest, KeytimeTellsWhenAKeyWasSet) {
  expect({{{"SET", "k", "v", "1500000000"}, "$1\r\nk"},
          {{"KEYTIME", "k"}, ":1500000000"},
          {{"SET", "l", "v"}, "$1\r\nl"},
          {{"KEYTIME", "l"}, ":1700000000"},
          {{"KEYTIME", "none"}, "$-1"},
          {{"DEL", "k"}, "+OK"},
          {{"KEYTIME", "k"}, "$-1"},
          {{"KEYTIME"}, kArguments},
          {{"KEYTIME", "a", "b"}, kArguments},
          {{"KEYTIME", ""}, "-Invalid argument"},
          {{"KEYTIME", std::string(256, 'k')}, "-Invalid key"}});
}

TEST_F(CommandsTest, KeycurGivesTheCursorBehindAKey) {
  for (const char* key : {"a", "b", "c"}) run({"SET", key, key, "77"});
  const std::string cursor = run({"KEYCUR", "b"}).substr(5, 17);
  EXPECT_THAT(run({"SCAN", cursor}), HasSubstr("*1\r\n*3\r\n$1\r\nc\r\n:1\r\n:77\r\n"));
  EXPECT_THAT(run({"RSCAN", cursor}), HasSubstr("*1\r\n*3\r\n$1\r\na\r\n:1\r\n:77\r\n"));
  run({"DEL", "b"});
  EXPECT_THAT(run({"SCAN", cursor}), HasSubstr("*1\r\n*3\r\n$1\r\nc\r\n"));
  expect({{{"KEYCUR", "b"}, "-Key not found"},
          {{"KEYCUR"}, kArguments},
          {{"KEYCUR", ""}, "-Invalid argument"},
          {{"KEYCUR", std::string(256, 'k')}, "-Invalid key"}});
}

TEST_F(CommandsTest, RscanIsScanBackwards) {
  expect({{{"RSCAN"}, "-No more data"},
          {{"RSCAN", "short"}, "-Invalid key format"},
          {{"RSCAN", std::string(17, 'x')}, "-Invalid key format"},
          {{"RSCAN", "a", "b"}, kArguments}});
  for (const char* key : {"a", "b", "c", "d"}) run({"SET", key, "v"});
  run({"SET", "a", "w"});
  run({"DEL", "c"});
  EXPECT_EQ(walk("SCAN"), "b d a ");
  EXPECT_EQ(walk("RSCAN"), "a d b ");
}

TEST_F(CommandsTest, RscanWalksManyFilesAndPages) {
  session_.reset();
  service_.reset();
  life_.options.data_file_bytes_max = 64 * kKiB;
  serve({});
  std::vector<std::string> keys;
  for (int i = 0; i < 5000; ++i) {
    keys.push_back("key" + std::to_string(i));
    run({"SET", keys.back(), "value"});
    if (i % 3 == 0) run({"DEL", keys.back()});
    if (i % 3 == 0) keys.pop_back();
  }
  EXPECT_GT(life_.data_files().size(), 3U);
  std::string forwards;
  std::string backwards;
  for (const std::string& key : keys) {
    forwards += key + " ";
    backwards.insert(0, key + " ");
  }
  EXPECT_EQ(walk("SCAN"), forwards);
  EXPECT_EQ(walk("RSCAN"), backwards);
  serve({});  // From the files.
  EXPECT_EQ(walk("RSCAN"), backwards);
}

TEST_F(CommandsTest, RscanCountsIdsDown) {
  run({"NSSET", "default", "mode", "seq"});
  constexpr int kIds = 5000;
  for (int i = 0; i < kIds; ++i) run({"SET", "", "v" + std::to_string(i)});
  // Every second of the last 800 stays, so that a whole run of ids without any is passed.
  std::size_t left = 0;
  for (int i = 0; i < kIds; ++i) {
    if (i == 0 || (i >= 4200 && i % 2 == 1)) {
      ++left;
      continue;
    }
    const auto id = encode_id(static_cast<std::uint64_t>(i));
    run({"DEL", std::string(as_text(id))});
  }
  const std::string page = run({"RSCAN"});
  EXPECT_EQ(page.substr(28, 6), "*" + std::to_string(left) + "\r\n");
  const auto last_id = encode_id(kIds - 1);
  const std::string last(as_text(last_id));
  EXPECT_EQ(page.substr(34, 22), "*3\r\n$8\r\n" + last + "\r\n:5\r\n");
  EXPECT_THAT(
      page, testing::EndsWith("*3\r\n$8\r\n" + std::string(8, '\0') + "\r\n:2\r\n:1700000000\r\n"));
  expect({{{"RSCAN", page.substr(9, 17)}, "-No more data"}});
}

TEST_F(CommandsTest, HistoryGoesBackVersionByVersion) {
  run({"SET", "k", "one", "1001"});
  run({"SET", "other", "x"});
  run({"NSJUMP"});
  run({"SET", "k", "two", "1002"});
  run({"SET", "k", "three", "1003"});
  const std::string newest = run({"HISTORY", "k"});
  ASSERT_THAT(newest, StartsWith("*3\r\n$8\r\n"));
  EXPECT_EQ(newest.substr(16), "\r\n$4\r\n1003\r\n$5\r\nthree\r\n");
  const std::string to_two = newest.substr(8, 8);
  const std::string second = run({"HISTORY", "k", to_two});
  ASSERT_THAT(second, StartsWith("*3\r\n$8\r\n"));
  EXPECT_EQ(second.substr(16), "\r\n$4\r\n1002\r\n$3\r\ntwo\r\n");
  const std::string to_one = second.substr(8, 8);
  const std::string gone(8, '\x7f');
  expect({{{"HISTORY", "k", to_one}, "*3\r\n$-1\r\n$4\r\n1001\r\n$3\r\none"},
          {{"HISTORY", "other", to_one}, "-Invalid arguments"},
          {{"HISTORY", "k", "short"}, "-Invalid arguments"},
          {{"HISTORY", "k", gone}, "-No more history"},
          {{"HISTORY", "none"}, "-Key not found"},
          {{"HISTORY"}, kArguments},
          {{"HISTORY", "k", "a", "b"}, kArguments},
          {{"HISTORY", std::string(256, 'k')}, "-Invalid key"},
          {{"DEL", "k"}, "+OK"},
          {{"HISTORY", "k"}, "-Key not found"},
          {{"SET", "k", "anew", "1004"}, "$1\r\nk"},
          {{"HISTORY", "k"}, "*3\r\n$-1\r\n$4\r\n1004\r\n$4\r\nanew"}});
}

TEST_F(CommandsTest, HistoryKnowsSequentialIds) {
  run({"NSSET", "default", "mode", "seq"});
  const std::string id(8, '\0');
  run({"SET", "", "one", "1001"});
  run({"NSJUMP"});
  run({"SET", id, "two", "1002"});
  const std::string newest = run({"HISTORY", id});
  EXPECT_EQ(newest.substr(16), "\r\n$4\r\n1002\r\n$3\r\ntwo\r\n");
  expect({{{"HISTORY", id, newest.substr(8, 8)}, "*3\r\n$-1\r\n$4\r\n1001\r\n$3\r\none"}});
}

TEST_F(CommandsTest, NsjumpStartsTheNextFile) {
  expect({{{"NSJUMP"}, "+OK"}, {{"SET", "k", "v"}, "$1\r\nk"}});
  EXPECT_THAT(run({"NSINFO", "default"}), HasSubstr("data_current_id: 1\n"));
  expect({{{"NSJUMP"}, "+OK"}, {{"NSJUMP"}, "+OK"}, {{"NSJUMP", "x"}, kArguments}});
  EXPECT_THAT(run({"NSINFO", "default"}),
              HasSubstr("data_path: /zdb/namespaces/00000001\n"
                        "data_active: /zdb/namespaces/00000001/00000002.data\n"
                        "index_path: /zdb/namespaces/00000001\n"
                        "index_active: /zdb/namespaces/00000001/00000002.index\n"
                        "data_current_id: 2\n"
                        "data_current_offset: 64\n"));
  expect({{{"GET", "k"}, "$1\r\nv"}, {{"SET", "l", "w"}, "$1\r\nl"}});
}

TEST_F(CommandsTest, FlushIsForPrivateNamespaces) {
  const std::string refused = "-Flushing public namespace denied";
  run({"NSNEW", "ns"});
  run({"SELECT", "ns"});
  run({"SET", "k", "v"});
  expect({{{"FLUSH"}, refused},
          {{"FLUSH", "x"}, kArguments},
          {{"NSSET", "ns", "public", "0"}, "+OK"},
          {{"FLUSH"}, refused},
          {{"NSSET", "ns", "password", "p"}, "+OK"},
          {{"NSSET", "ns", "public", "1"}, "+OK"},
          {{"FLUSH"}, refused},
          {{"NSSET", "ns", "public", "0"}, "+OK"},
          {{"NSSET", "ns", "worm", "1"}, "+OK"},
          {{"FLUSH"}, "-Namespace is protected by worm mode"},
          {{"NSSET", "ns", "worm", "0"}, "+OK"},
          {{"NSSET", "ns", "lock", "1"}, "+OK"},
          {{"FLUSH"}, "-Namespace is temporarily locked (read-only)"},
          {{"NSSET", "ns", "lock", "0"}, "+OK"},
          {{"GET", "k"}, "$1\r\nv"},
          {{"FLUSH"}, "+OK"},
          {{"FLUSH"}, "+OK"},
          {{"GET", "k"}, "$-1"},
          {{"DBSIZE"}, ":0"},
          {{"SCAN"}, "-No more data"},
          {{"SET", "k", "w"}, "$1\r\nk"}});
}

TEST_F(CommandsTest, FlushRemovesTheFiles) {
  run({"NSSET", "default", "password", "p"});
  run({"NSSET", "default", "public", "0"});
  run({"SELECT", "default", "p"});
  for (int i = 0; i < 20; ++i) {
    run({"SET", "key" + std::to_string(i), std::string(100000, 'v')});
    if (i % 5 == 0) run({"NSJUMP"});
  }
  EXPECT_GT(life_.data_files().size(), 3U);
  const auto before = life_.disk().space("/zdb");
  ASSERT_TRUE(before);
  expect({{{"FLUSH"}, "+OK"}});
  EXPECT_EQ(life_.data_files().size(), 1U);
  EXPECT_THAT(run({"NSINFO", "default"}), HasSubstr("entries: 0\n"));
  EXPECT_THAT(run({"NSINFO", "default"}), HasSubstr("data_size_bytes: 0\n"));
  run({"SET", "after", "x"});
  session_.reset();
  service_.reset();
  serve({});
  run({"SELECT", "default", "p"});
  EXPECT_EQ(walk("SCAN"), "after ");
}

TEST_F(CommandsTest, FlushKeepsSequentialIdsUnique) {
  run({"NSSET", "default", "mode", "seq"});
  run({"NSSET", "default", "password", "p"});
  run({"NSSET", "default", "public", "0"});
  run({"SELECT", "default", "p"});
  run({"SET", "", "a"});
  run({"SET", "", "b"});
  expect({{{"FLUSH"}, "+OK"},
          {{"SET", "", "c"}, bulk(std::string("\2\0\0\0\0\0\0\0", 8))},
          {{"GET", std::string(8, '\0')}, "$-1"}});
}

TEST_F(CommandsTest, ReloadReadsTheFilesAgainAndKeepsClients) {
  run({"NSNEW", "ns"});
  run({"SELECT", "ns"});
  run({"SET", "k", "v"});
  Session other(*service_);
  run_on(other, {"SELECT", "ns"});
  expect({{{"RELOAD", "ns"}, "+OK"}, {{"GET", "k"}, "$1\r\nv"}, {{"SET", "l", "w"}, "$1\r\nl"}});
  EXPECT_EQ(run_on(other, {"GET", "l"}), "$1\r\nw\r\n");
  expect({{{"RELOAD", "none"}, "-Namespace not found"},
          {{"RELOAD"}, kArguments},
          {{"RELOAD", ""}, "-Invalid argument"},
          {{"RELOAD", std::string(129, 'n')}, "-Namespace too long"},
          {{"SELECT", "default"}, "+OK"},
          {{"NSDEL", "ns"}, "+OK"},
          {{"NSNEW", "ns"}, "+OK"}});
  // Another namespace by now, in spite of its name.
  Session::After after = Session::After::kContinue;
  EXPECT_EQ(run_on(other, {"GET", "k"}, &after), kGone + "\r\n");
  EXPECT_EQ(after, Session::After::kClose);
}

TEST_F(CommandsTest, IndexFilesAreNeverDirty) {
  run({"SET", "k", "v"});
  run({"DEL", "k"});
  expect({{{"INDEX", "DIRTY"}, "*0"},
          {{"index", "dirty", "reset"}, "+OK"},
          {{"INDEX", "DIRTY", "x"}, "-Unknown INDEX subcommand"},
          {{"INDEX", "CLEAN"}, "-Unknown INDEX subcommand"},
          {{"INDEX"}, kArguments}});
}

TEST_F(CommandsTest, DataRawShowsAnEntry) {
  run({"SET", "key", "value", "1001"});
  run({"SET", "l", "", "1002"});
  run({"DEL", "key"});
  char crc[11];
  std::snprintf(crc, sizeof crc, "0x%08x", crc32c(as_bytes("value")));
  expect(
      {{{"DATA", "RAW", "1", "64"},
        "*6\r\n$3\r\nkey\r\n:0\r\n$10\r\n" + std::string(crc) + "\r\n:0\r\n:1001\r\n$5\r\nvalue"},
       {{"DATA", "RAW", "1", "120"},
        "*6\r\n$1\r\nl\r\n:64\r\n$10\r\n0x00000000\r\n:0\r\n:1002\r\n$0\r\n"},
       {{"data", "raw", "1", "176"},
        "*6\r\n$3\r\nkey\r\n:120\r\n$10\r\n0x00000000\r\n:1\r\n:1700000000\r\n$-1"},
       {{"DATA", "RAW", "1", "232"}, "-EOF"},
       {{"DATA", "RAW", "1", "72"}, "-Invalid Request"},
       {{"DATA", "RAW", "1", "65"}, "-Invalid Request"},
       {{"DATA", "RAW", "9", "64"}, "-Invalid Request"},
       {{"DATA", "RAW", "x", "64"}, "-Invalid Request"},
       {{"DATA", "RAW", "1", "-1"}, "-Invalid Request"},
       {{"DATA", "COOKED", "1", "64"}, "-Invalid Request"},
       {{"DATA", "RAW", "1"}, kArguments}});
}

TEST_F(CommandsTest, AdministratorsCommandsAreRefusedToOthers) {
  serve({.admin_password = "secret"});
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"NSJUMP"}, {"RELOAD", "default"}, {"INDEX", "DIRTY"}, {"DATA", "RAW", "1", "64"}}) {
    EXPECT_EQ(run(words), kDenied + "\r\n") << words.front();
  }
  EXPECT_THAT(run({"NSINFO", "default"}), Not(HasSubstr("data_path")));
  run({"AUTH", "secret"});
  EXPECT_EQ(run({"NSJUMP"}), "+OK\r\n");
}

TEST_F(CommandsTest, FrozenNamespacesAnswerNoReads) {
  run({"SET", "k", "v"});
  run({"NSSET", "default", "freeze", "1"});
  const std::string frozen = "-Namespace is temporarily frozen (read-write disabled)";
  expect({{{"KEYTIME", "k"}, frozen},
          {{"KEYCUR", "k"}, frozen},
          {{"RSCAN"}, frozen},
          {{"HISTORY", "k"}, frozen},
          {{"FLUSH"}, frozen},
          {{"WAIT", "SET"}, frozen}});
}

TEST_F(CommandsTest, ProtectMakesDefaultReadOnlyWithoutThePassword) {
  serve({.admin_password = "secret", .protect_default = true});
  expect({{{"SET", "k", "v"}, "-Namespace is in read-only mode"},
          {{"GET", "k"}, "$-1"},
          {{"SELECT", "default", "wrong"}, "-Access denied"},
          {{"SELECT", "default"}, "+OK"},
          {{"SET", "k", "v"}, "-Namespace is in read-only mode"},
          {{"SELECT", "default", "secret"}, "+OK"},
          {{"SET", "k", "v"}, "$1\r\nk"},
          {{"FLUSH"}, "-Flushing public namespace denied"},
          {{"NSNEW", "one"}, kDenied},
          {{"AUTH", "secret"}, "+OK"},
          {{"NSSET", "default", "password", "p"}, "-Cannot update default namespace"},
          {{"NSSET", "default", "public", "0"}, "-Cannot update default namespace"}});
  EXPECT_THAT(run({"NSINFO", "default"}), HasSubstr("password: yes\n"));
}

TEST_F(CommandsTest, HooksAreToldOfNamespacesAndListed) {
  expect({{{"HOOKS"}, "*0"}});
  const std::string program = testing::TempDir() + "qsfs-hook-" + std::to_string(::getpid());
  std::ofstream(program) << "#!/bin/sh\nexit 3\n";
  ASSERT_EQ(::chmod(program.c_str(), 0700), 0);
  auto hooks = Hooks::start({.program = program, .instance = "unix:///s"}, system_clock());
  ASSERT_TRUE(hooks) << hooks.error().message();
  serve({.hooks = hooks->get()});
  expect({{{"NSNEW", "made"}, "+OK"},
          {{"NSSET", "made", "maxsize", "100"}, "+OK"},
          {{"NSSET", "made", "maxsize", "wrong"}, "-Invalid value"},
          {{"NSNEW", "made"}, "-This namespace is not available"},
          {{"RELOAD", "made"}, "+OK"},
          {{"NSDEL", "made"}, "+OK"}});
  // What the failed commands wanted, nobody is told.
  EXPECT_FALSE((*hooks)->run("last", {}));
  std::string told;
  for (const HookRun& run : (*hooks)->runs()) told += run.event + " ";
  EXPECT_EQ(told, "namespace-created namespace-updated namespace-reloaded namespace-deleted last ");
  const std::string listed = run({"HOOKS"});
  EXPECT_THAT(listed, StartsWith("*5\r\n*6\r\n$17\r\nnamespace-created\r\n*1\r\n$4\r\nmade\r\n:"));
  EXPECT_THAT(listed, testing::EndsWith("\r\n:3\r\n"));
  session_.reset();
  service_.reset();
  std::filesystem::remove(program);
}

TEST_F(CommandsTest, WaitEndsWithAnotherClientsCommand) {
  Session other(*service_);
  Session::After after = Session::After::kContinue;
  EXPECT_EQ(run_on(*session_, {"WAIT", "set"}, &after), "");
  EXPECT_EQ(after, Session::After::kWait);
  run_on(other, {"GET", "k"});
  EXPECT_EQ(poll(*session_, &after), "");
  EXPECT_EQ(after, Session::After::kWait);
  run_on(other, {"SET", "k", "v"});
  run_on(other, {"DEL", "k"});
  EXPECT_EQ(poll(*session_, &after), "+SET\r\n");
  EXPECT_EQ(after, Session::After::kContinue);
  run_on(*session_, {"WAIT", "*", "1000"}, &after);
  run_on(other, {"DBSIZE"});
  EXPECT_EQ(poll(*session_, &after), "+DBSIZE\r\n");
}

TEST_F(CommandsTest, WaitLooksAtItsOwnNamespaceOnly) {
  run({"NSNEW", "ns"});
  Session other(*service_);
  run_on(other, {"SELECT", "ns"});
  Session::After after = Session::After::kContinue;
  run_on(*session_, {"WAIT", "*", "100"}, &after);
  run_on(other, {"SET", "k", "v"});
  EXPECT_EQ(poll(*session_, &after), "");
  life_.clock.sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(poll(*session_, &after), "-Timeout\r\n");
  EXPECT_EQ(after, Session::After::kContinue);
}

TEST_F(CommandsTest, WaitEndsWithItsNamespace) {
  run({"NSNEW", "ns"});
  Session other(*service_);
  run_on(other, {"SELECT", "ns"});
  Session::After after = Session::After::kContinue;
  run_on(other, {"WAIT", "SET"}, &after);
  ASSERT_EQ(after, Session::After::kWait);
  run({"NSDEL", "ns"});
  EXPECT_EQ(poll(other, &after), kGone + "\r\n");
  EXPECT_EQ(after, Session::After::kClose);
}

TEST_F(CommandsTest, WaitChecksItsArguments) {
  const std::string timeout = "-Invalid timeout";
  expect({{{"WAIT"}, kArguments},
          {{"WAIT", "a", "b", "c"}, kArguments},
          {{"WAIT", ""}, "-Invalid argument"},
          {{"WAIT", "JUMP"}, "-Unknown command to watch"},
          {{"WAIT", "SET", "99"}, timeout},
          {{"WAIT", "SET", "1800001"}, timeout},
          {{"WAIT", "SET", "soon"}, timeout}});
}

// Dies at every call that a flush makes to the disk. What is left of an unfinished one holds no
// value that was replaced and no key that was removed before.
void die_at_every_call(sim::CrashKind kind) {
  for (std::uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    EngineLife life(nth);
    life.open();
    life.must_set("removed", "x");
    life.must_set("a", "old");
    life.must_set("b", "b");
    ASSERT_TRUE(life.ns().rotate());
    life.must_set("a", "new");
    life.must_remove("removed");
    ASSERT_TRUE(life.ns().rotate());
    life.must_set("c", "c");
    ASSERT_TRUE(life.engine().sync());
    life.disk().crash_at_call(nth, kind);
    const bool flushed = life.ns().flush().has_value();
    life.crash(kind);
    life.open();
    ASSERT_TRUE(life.is_open());
    EXPECT_EQ(life.must_get("removed"), std::nullopt);
    const auto a = life.must_get("a");
    EXPECT_TRUE(!a || *a == "new") << *a;
    if (flushed) {
      EXPECT_EQ(life.ns().counters().entries, 0U);
    }
    life.must_set("d", "d");
    EXPECT_EQ(life.must_get("d"), "d");
    if (testing::Test::HasFailure() || flushed) return;
  }
}

TEST(FlushCrashTest, SurvivesDeathAtEveryCall) { die_at_every_call(sim::CrashKind::kKill); }
TEST(FlushCrashTest, SurvivesPowerLossAtEveryCall) {
  die_at_every_call(sim::CrashKind::kPowerLoss);
}

TEST(FlushFaultTest, CanBeRepeatedAfterAFailureOfEveryCall) {
  for (std::uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    EngineLife life(nth);
    life.open();
    life.must_set("a", "old");
    ASSERT_TRUE(life.ns().rotate());
    life.must_set("a", "new");
    ASSERT_TRUE(life.ns().rotate());
    life.must_set("c", "c");
    const std::uint64_t calls_before = life.disk().calls();
    life.disk().inject({.call = sim::DiskCall::kAny,
                        .nth = nth,
                        .from_then_on = false,
                        .sys_errno = EIO,
                        .path_contains = ""});
    const Status first = life.ns().flush();
    const bool reached = life.disk().calls() - calls_before >= nth;
    life.disk().clear_faults();
    const Status second = life.ns().flush();
    EXPECT_TRUE(second) << second.error().message();
    EXPECT_EQ(life.ns().counters().entries, 0U);
    life.must_set("d", "d");
    life.reopen();
    EXPECT_EQ(life.must_get("a"), std::nullopt);
    EXPECT_EQ(life.must_get("c"), std::nullopt);
    EXPECT_EQ(life.must_get("d"), "d");
    if (testing::Test::HasFailure()) return;
    if (!reached) {
      EXPECT_TRUE(first);
      return;
    }
  }
}

}  // namespace
}  // namespace qsfs::zdb
