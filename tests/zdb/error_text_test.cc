#include "zdb/error_text.h"

#include <gtest/gtest.h>

#include <string>

namespace qsfs::zdb {
namespace {

Errc CodeOf(std::string_view text) { return meaning_of_error(text).code; }
bool Keeps(std::string_view text) { return meaning_of_error(text).keeps_connection; }

TEST(ErrorTextTest, KnowsTheStatesOfANamespace) {
  EXPECT_EQ(CodeOf("No space left on this namespace"), Errc::kNoSpace);
  EXPECT_EQ(CodeOf("Namespace is temporarily locked (read-only)"), Errc::kLocked);
  EXPECT_EQ(CodeOf("Namespace is temporarily frozen (read-write disabled)"), Errc::kLocked);
  EXPECT_EQ(CodeOf("Namespace is protected by worm mode"), Errc::kPermission);
  EXPECT_EQ(CodeOf("Cannot delete a key when namespace is in worm mode"), Errc::kPermission);
  EXPECT_EQ(CodeOf("Namespace not found"), Errc::kNotFound);
  EXPECT_EQ(CodeOf("Your active namespace is not available anymore (probably removed)."),
            Errc::kNotFound);
}

TEST(ErrorTextTest, KnowsRefusals) {
  for (const char* text : {"Access denied", "Permission denied", "Namespace is in read-only mode",
                           "Namespace protected and private", "Unauthorized"}) {
    EXPECT_EQ(CodeOf(text), Errc::kAccess) << text;
  }
}

TEST(ErrorTextTest, KnowsTroubleWithTheDisk) {
  for (const char* text :
       {"Internal Error", "Cannot write data right now", "Cannot write index right now",
        "Cannot delete key (data)", "Cannot delete key (index)"}) {
    EXPECT_EQ(CodeOf(text), Errc::kIo) << text;
    EXPECT_TRUE(Keeps(text));
  }
}

TEST(ErrorTextTest, KnowsBadRequests) {
  EXPECT_EQ(CodeOf("Invalid key, only update authorized"), Errc::kInvalidArgument);
  EXPECT_EQ(CodeOf("Invalid argument, key needed"), Errc::kInvalidArgument);
  EXPECT_EQ(CodeOf("Key too large"), Errc::kTooBig);
  EXPECT_EQ(CodeOf("Command not supported"), Errc::kUnsupported);
}

TEST(ErrorTextTest, ClosesTheConnectionAfterParserErrorsAndUnknownTexts) {
  for (const char* text : {"Malformed request, array expected", "Missing arguments",
                           "Too many arguments", "Malformed query string", "Payload too big",
                           "Internal memory error", "", "ERR something new"}) {
    EXPECT_FALSE(Keeps(text)) << text;
  }
  EXPECT_EQ(CodeOf("ERR something new"), Errc::kProtocol);
}

TEST(ErrorTextTest, PrintsNeitherSecretsNorControlCharactersNorNovels) {
  EXPECT_EQ(printable_error("no such user hunter2!", "hunter2"), "no such user ***!");
  EXPECT_EQ(printable_error("a\x1b[31m\r\n\xff", ""), "a?[31m???");
  EXPECT_LE(printable_error(std::string(100'000, 'x'), "").size(), 210U);
}

}  // namespace
}  // namespace qsfs::zdb
