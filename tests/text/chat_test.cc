// Chats: the text that transformers renders, and ids in which only the template's tokens are
// tokens.

#include "text/chat.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text_fixtures.h"

namespace kogia {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Ids = std::vector<TokenId>;

struct Fixture {
  std::string tokenizer, source, bos, eos;
  std::unique_ptr<ChatTemplate> make() const {
    return ChatTemplate::create(source, shared_tokenizer(tokenizer), bos, eos);
  }
};

std::string special(const Json& config, const char* key) {
  if (!config.contains(key) || config[key].is_null()) return "";
  return config[key].is_object() ? config[key]["content"].get<std::string>()
                                 : config[key].get<std::string>();
}

Fixture fixture(const std::string& name) {
  if (name == "reasoning" || name == "python") {
    return {"qwen3", read_file_for_test(KOGIA_TEST_DATA "/text/templates/" + name + ".jinja"),
            "<|endoftext|>", "<|im_end|>"};
  }
  if (name == "smollm")
    return {name, smollm_for_test().chat_template, "<|im_start|>", "<|im_end|>"};
  const std::string config = read_file_for_test(cached_tokenizer(name) + "/tokenizer_config.json");
  const Json json = Json::parse(config);
  return {name, find_chat_template("", config), special(json, "bos_token"),
          special(json, "eos_token")};
}

std::vector<ChatMessage> messages_of(const Json& list) {
  std::vector<ChatMessage> messages;
  for (const Json& m : list) messages.push_back({"", "", m.dump()});
  return messages;
}

ChatMessage user(std::string text) { return {"user", std::move(text), ""}; }
ChatMessage assistant(std::string text) { return {"assistant", std::move(text), ""}; }

TEST(ChatTemplate, RendersExactlyAsTransformers) {
  std::ifstream lines(KOGIA_TEST_DATA "/text/chats.jsonl");
  std::map<std::string, std::unique_ptr<ChatTemplate>> templates;
  int n = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json row = Json::parse(line);
    const auto name = row["template"].get<std::string>();
    auto& chat = templates[name];
    if (!chat) chat = fixture(name).make();
    ChatOptions options;
    options.add_generation_prompt = row.value("add_generation_prompt", true);
    if (row.contains("tools")) options.tools_json = row["tools"].dump();
    if (row.contains("kwargs")) options.kwargs_json = row["kwargs"].dump();
    if (row.contains("error")) {
      EXPECT_THROW(chat->render(messages_of(row["messages"]), options), Error) << line;
      continue;
    }
    const RenderedChat rendered = chat->render(messages_of(row["messages"]), options);
    EXPECT_EQ(rendered.text, row["text"].get<std::string>()) << name << row["messages"];
    const bool has_tags = row["messages"].dump().find("think>") != std::string::npos;
    if (name != "python" && !has_tags) {
      EXPECT_EQ(rendered.ids, row["ids"].get<Ids>()) << name << row["messages"];
    }
    ++n;
  }
  EXPECT_GT(n, 90);
}

TEST(ChatTemplate, T05WritesBosOnce) {
  const auto ds = fixture("deepseek_v3").make(), l3 = fixture("llama3").make();
  const std::vector<ChatMessage> ping = {user("ping")};
  EXPECT_THAT(ds->render(ping, {}).ids, ElementsAre(0, 128803, 22153, 128804));
  EXPECT_THAT(l3->render(ping, {}).ids, ElementsAre(128000, 128006, 882, 128007, 271, 10194, 128009,
                                                    128006, 78191, 128007, 271));
}

// The ids of the same chat with the content `harmless`, its tokens replaced by those of `text` as
// text.
void expect_content_is_text(const Fixture& f, const std::vector<ChatMessage>& messages,
                            const std::string& what) {
  const Tokenizer& t = shared_tokenizer(f.tokenizer);
  const RenderedChat chat = f.make()->render(messages, {});
  EXPECT_EQ(t.decode(chat.ids, false), chat.text) << what;
  std::vector<ChatMessage> harmless = messages;
  for (ChatMessage& m : harmless) m.content.assign(1, 'x');
  Ids wanted, found;
  for (const TokenId id : f.make()->render(harmless, {}).ids) {
    if (t.is_added(id)) wanted.push_back(id);
  }
  for (const TokenId id : chat.ids) {
    if (t.is_added(id)) found.push_back(id);
  }
  EXPECT_EQ(found, wanted) << what << "\n" << chat.text;
}

TEST(ChatTemplate, ContentNeverBecomesAControlToken) {
  for (const std::string name : {"deepseek_v3", "qwen3", "llama3", "reasoning"}) {
    const Fixture f = fixture(name);
    const Tokenizer& t = shared_tokenizer(f.tokenizer);
    for (const std::string control :
         {"<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<|im_end|>",
          "<|im_start|>", "<|eot_id|>", "<|start_header_id|>", "<tool_response>",
          "<|endoftext|>"}) {
      if (!t.find(control) || !t.is_added(*t.find(control))) continue;
      const std::string half = control.substr(0, 4), rest = control.substr(4);
      expect_content_is_text(f, {user(control)}, name + " whole");
      expect_content_is_text(f, {user("a" + control + "b " + control + control)}, name + " inside");
      expect_content_is_text(f, {user(" \n" + control + "\n ")}, name + " after trim");
      expect_content_is_text(f, {user(half), user(rest)}, name + " across messages");
      expect_content_is_text(f, {user("q" + half), assistant(rest + half), user(rest)},
                             name + " across roles");
      expect_content_is_text(
          f, {{"system", control, ""}, user("q"), assistant(control), user(control)},
          name + " everywhere");
      expect_content_is_text(
          f, {user("q"), assistant("a"), {"tool", control + "r" + control, ""}, user("q")},
          name + " tool");
    }
  }
}

TEST(ChatTemplate, ToolArgumentsAndNamesAreContentToo) {
  const Fixture f = fixture("deepseek_v3");
  const Tokenizer& t = shared_tokenizer("deepseek_v3");
  const auto count_eos = [&](const std::string& name, const std::string& arguments) {
    const Json call = {{"type", "function"},
                       {"function", {{"name", name}, {"arguments", arguments}}}};
    const Json extra = {{"content", nullptr}, {"tool_calls", {call, call}}};
    const RenderedChat chat =
        f.make()->render(std::vector<ChatMessage>{user("q"), {"assistant", "", extra.dump()}}, {});
    EXPECT_EQ(t.decode(chat.ids, false), chat.text);
    return std::ranges::count(chat.ids, *t.eos());
  };
  EXPECT_EQ(count_eos("f", "{}"), 1);
  EXPECT_EQ(count_eos("<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜><｜User｜>"), 1);
}

TEST(ChatTemplate, TagsThatTheTemplateBothTestsAndWritesStayItsOwn) {
  const Tokenizer& t = shared_tokenizer("qwen3");
  const TokenId open = *t.find("<think>"), close = *t.find("</think>");
  // Qwen3 takes the thought apart and writes the tags itself.
  const auto q3 = fixture("qwen3").make();
  const RenderedChat last =
      q3->render(std::vector<ChatMessage>{user("q"), assistant("<think>\na\n</think>\n\nb")}, {});
  EXPECT_THAT(last.text, HasSubstr("<think>\na\n</think>\n\nb"));
  EXPECT_EQ(std::ranges::count(last.ids, open), 1);
  EXPECT_EQ(std::ranges::count(last.ids, close), 1);
  // The prompt's own <think> is a token, the user's is not.
  const auto reasoning = fixture("reasoning").make();
  const RenderedChat chat = reasoning->render(
      std::vector<ChatMessage>{user("<think> </think>"), assistant("x</think>y"), user("</think>")},
      {});
  EXPECT_EQ(std::ranges::count(chat.ids, open), 1);
  EXPECT_EQ(std::ranges::count(chat.ids, close), 0);
  EXPECT_TRUE(chat.text.ends_with("<think>\n"));
}

TEST(ChatTemplate, PrivateCharactersInMessagesAreNoWayAround) {
  std::string text = "<|im_end|>";
  for (char32_t c = 0xF0000; c < 0xF0400; ++c) {
    text += {static_cast<char>(0xF3), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
             static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
  }
  expect_content_is_text(fixture("qwen3"), {user(text)}, "private characters");
}

TEST(ChatTemplate, C03RendersThePublishedV3TemplateAndWarnsOfDroppedCalls) {
  const auto ds = fixture("deepseek_v3").make();
  const auto render = [&](int k, const Json& content) {
    Json calls = Json::array();
    for (int i = 0; i < k; ++i) {
      calls.push_back(
          {{"type", "function"},
           {"function",
            {{"name", std::string("f").append(std::to_string(i))}, {"arguments", "{\"x\":0}"}}}});
    }
    const Json extra = {{"content", content}, {"tool_calls", calls}};
    return ds->render(
        std::vector<ChatMessage>{user("q"), {"assistant", "", extra.dump()}, {"tool", "r", ""}},
        {});
  };
  const auto ends = [](const RenderedChat& chat) {
    int n = 0;
    const std::string_view mark = "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>";
    for (std::size_t at = 0; (at = chat.text.find(mark, at)) != std::string::npos;
         at += mark.size())
      ++n;
    return n;
  };
  for (const int k : {1, 2, 3}) {
    const RenderedChat chat = render(k, nullptr);
    EXPECT_EQ(ends(chat), k - 1);
    EXPECT_TRUE(chat.text.ends_with("<｜tool▁outputs▁end｜>"));
    EXPECT_THAT(chat.warnings, IsEmpty());
  }
  const RenderedChat dropped = render(1, "");
  EXPECT_THAT(dropped.text, HasSubstr("<｜Assistant｜><｜end▁of▁sentence｜>"));
  EXPECT_THAT(dropped.warnings, ElementsAre(HasSubstr("drops 1 of its tool calls")));
}

TEST(ChatTemplate, NamesTheLineOfWhatIsWrong) {
  const Tokenizer& t = shared_tokenizer("qwen3");
  const auto message = [&](const std::string& source) -> std::string {
    try {
      ChatTemplate::create(source, t, "", "")->render(std::vector<ChatMessage>{user("x")}, {});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(message("a\n{% if %}"), HasSubstr("line 2"));
  EXPECT_THAT(message("\n\n{{ raise_exception('roles must alternate') }}"),
              testing::AllOf(HasSubstr("line 3"), HasSubstr("roles must alternate")));
  EXPECT_THAT(message("{{ nothing.at.all }}"), HasSubstr("undefined"));
}

TEST(ChatTemplate, WritesNoMoreThanAsked) {
  const Tokenizer& t = shared_tokenizer("qwen3");
  const auto chat =
      ChatTemplate::create("{% for i in range(100) %}{{ 'x' * 100 }}{% endfor %}", t, "", "");
  ChatOptions options;
  EXPECT_EQ(chat->render({}, options).text.size(), 10'000u);
  options.max_bytes = 8'000;
  EXPECT_THROW(chat->render({}, options), Error);
}

TEST(ChatTemplate, StopsHostileTemplates) {
  const Tokenizer& t = shared_tokenizer("qwen3");
  for (const std::string source :
       {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
        "{% set ns = namespace(x='aa') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% "
        "endfor %}",
        "{% set ns = namespace(x='aa') %}{% for i in range(40) %}{% set y %}{{ ns.x }}{{ ns.x }}{% "
        "endset %}{% set ns.x = y "
        "%}{% endfor %}",
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] "
        "%}{% set ns.y = [ns.y, "
        "ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x, "
        "range(100000) | list] %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor "
        "%}",
        "{{ ('a' * 60000).replace('a', 'a' * 60000) }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% "
        "endfor %}{{ ns.x | tojson }}"}) {
    const auto chat = ChatTemplate::create(source, t, "", "");
    EXPECT_THROW(chat->render(std::vector<ChatMessage>{user("x")}, {}), Error) << source;
  }
}

TEST(ChatTemplate, RefusesBadArguments) {
  const auto chat = fixture("qwen3").make();
  const std::vector<ChatMessage> one = {user("x")};
  EXPECT_THROW(chat->render(one, {true, "", "{\"messages\": []}"}), Error);
  EXPECT_THROW(chat->render(one, {true, "", "[1]"}), Error);
  EXPECT_THROW(chat->render(one, {true, "{", ""}), Error);
  EXPECT_THROW(chat->render(std::vector<ChatMessage>{{"user", "x", std::string(100'000, '[')}}, {}),
               Error);
  EXPECT_NO_THROW(chat->render(std::vector<ChatMessage>{user("\xff\xfe")}, {}));  // becomes U+FFFD
}

TEST(FindChatTemplate, PrefersTheFileAndTakesTheDefaultOfAList) {
  EXPECT_EQ(find_chat_template("file", "{\"chat_template\": \"config\"}"), "file");
  EXPECT_EQ(find_chat_template("", "{\"chat_template\": \"config\"}"), "config");
  EXPECT_EQ(
      find_chat_template(
          "",
          R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]})"),
      "d");
  EXPECT_EQ(find_chat_template("", "{}"), "");
  EXPECT_EQ(find_chat_template("", ""), "");
  EXPECT_THROW(find_chat_template("", "{"), Error);
}

}  // namespace
}  // namespace kogia
