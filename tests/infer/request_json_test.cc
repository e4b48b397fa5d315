// Requests as JSON: what is read, and what is refused with which words.
#include "infer/request_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace kogia {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

RequestLine parse(const std::string& text) { return parse_request_line(text, "p.jsonl:3"); }

std::string refusal(const std::string& text) {
  try {
    parse(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalid);
    EXPECT_THAT(error.what(), StartsWith("p.jsonl:3"));
    return error.what();
  }
  return "accepted";
}

TEST(RequestLine, HoldsMessagesAndSettings) {
  const RequestLine line = parse(
      R"({"id": "a-1", "messages": [{"role": "system", "content": "Be short."},
          {"role": "user", "content": [{"type": "text", "text": "Why "}, {"type": "text", "text": "me?"}]}],
          "max_tokens": 64, "temperature": 0.6, "top_p": 0.9, "top_k": 40.0, "min_p": 0.1, "seed": 18446744073709551615,
          "stop": ["\n\n", "END"], "logprobs": true, "top_logprobs": 3, "repetition_penalty": 1.1,
          "presence_penalty": -0.5, "frequency_penalty": 0.25, "logit_bias": {"42": -100, "7": 1.5},
          "ignore_eos": true, "n": 4, "model": "m", "stream": false, "user": null})");
  EXPECT_EQ(line.id_key, "id");
  EXPECT_EQ(line.id_json, "\"a-1\"");
  ASSERT_EQ(line.body.messages.size(), 2U);
  EXPECT_EQ(line.body.messages[0].role, "system");
  EXPECT_EQ(line.body.messages[1].content, "Why me?");
  EXPECT_EQ(line.body.messages[1].extra_json, "");
  EXPECT_EQ(line.body.n, 4);
  EXPECT_TRUE(line.body.ignored.empty());
  EXPECT_EQ(line.body.settings.logprobs, true);

  GenerateOptions options;
  line.body.settings.apply(options);
  EXPECT_EQ(options.max_tokens, 64);
  EXPECT_EQ(options.sampling.temperature, 0.6);
  EXPECT_EQ(options.sampling.top_p, 0.9);
  EXPECT_EQ(options.sampling.top_k, 40);
  EXPECT_EQ(options.sampling.min_p, 0.1);
  EXPECT_EQ(options.sampling.seed, 18446744073709551615U);
  EXPECT_THAT(options.stop, ElementsAre("\n\n", "END"));
  EXPECT_EQ(options.sampling.repetition_penalty, 1.1);
  EXPECT_EQ(options.sampling.presence_penalty, -0.5);
  EXPECT_EQ(options.sampling.frequency_penalty, 0.25);
  EXPECT_THAT(options.sampling.logit_bias,
              ElementsAre(testing::Pair(7, 1.5), testing::Pair(42, -100)));
  EXPECT_TRUE(options.ignore_eos);
  EXPECT_EQ(options.n_top_logprobs, 3);
}

TEST(RequestLine, WhatIsLeftOutStaysTheCallersChoice) {
  GenerateOptions options;
  options.max_tokens = 9;
  options.stop = {"x"};
  options.sampling.temperature = 0.3;
  const RequestLine line = parse(R"({"prompt": "Once", "temperature": null})");
  line.body.settings.apply(options);
  EXPECT_EQ(line.body.text, "Once");
  EXPECT_EQ(line.id_key, "");
  EXPECT_EQ(options.max_tokens, 9);
  EXPECT_THAT(options.stop, ElementsAre("x"));
  EXPECT_EQ(options.sampling.temperature, 0.3);
}

TEST(RequestLine, APromptIsTextOrIds) {
  EXPECT_EQ(parse(R"({"text": "Once"})").body.text, "Once");
  EXPECT_THAT(parse(R"({"prompt": [5, 0, 7], "custom_id": 12})").body.ids, ElementsAre(5, 0, 7));
  EXPECT_EQ(parse(R"({"prompt": [5], "custom_id": 12})").id_json, "12");
  EXPECT_THAT(refusal(R"({"prompt": []})"), HasSubstr("prompt is [], expected a text or a list"));
  EXPECT_THAT(refusal(R"({"prompt": ["a", "b"]})"), HasSubstr("a list of token ids"));
  EXPECT_THAT(refusal(R"({"prompt": [-1]})"), HasSubstr("a list of token ids"));
  EXPECT_THAT(refusal(R"({"prompt": ""})"), HasSubstr("not empty"));
  EXPECT_THAT(refusal(R"({"text": ""})"), HasSubstr("not empty"));
}

TEST(RequestLine, LinesOfOpenAiBatchFilesAreTaken) {
  const RequestLine line = parse(
      R"({"custom_id": "r7", "method": "POST", "url": "/v1/chat/completions",
          "body": {"model": "x", "messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 5}})");
  EXPECT_EQ(line.id_key, "custom_id");
  EXPECT_EQ(line.id_json, "\"r7\"");
  EXPECT_EQ(line.body.settings.max_tokens, 5);
  EXPECT_EQ(line.body.messages[0].content, "Hi");
  EXPECT_THAT(refusal(R"({"url": "/v1/embeddings", "body": {"prompt": "x"}})"),
              HasSubstr("url is \"/v1/embeddings\", expected /v1/chat/completions or"));
  EXPECT_THAT(refusal(R"({"max_tokens": 5, "body": {"prompt": "x"}})"),
              HasSubstr("'max_tokens' stands beside body"));
  EXPECT_THAT(refusal(R"({"body": []})"), HasSubstr("the request is [], expected a JSON object"));
}

TEST(RequestLine, OtherFieldsOfAMessageReachTheTemplate) {
  const RequestLine line = parse(
      R"({"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "c"}]},
                       {"role": "tool", "content": "4", "tool_call_id": "c"}],
          "tools": [{"type": "function"}], "chat_template_kwargs": {"enable_thinking": false}})");
  EXPECT_EQ(line.body.messages[0].extra_json, R"({"content":null,"tool_calls":[{"id":"c"}]})");
  EXPECT_EQ(line.body.messages[1].extra_json, R"({"tool_call_id":"c"})");
  EXPECT_EQ(line.body.chat.tools_json, R"([{"type":"function"}])");
  EXPECT_EQ(line.body.chat.kwargs_json, R"({"enable_thinking":false})");
}

TEST(RequestLine, NamesTheKeyWhatItIsAndWhatWasExpected) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "p.jsonl:3: empty"},
      {"nonsense", "p.jsonl:3 is not JSON"},
      {R"({"prompt": "x")", "p.jsonl:3 is not JSON"},
      {"[1]", "the line is [1], expected a JSON object"},
      {"{}", "none of messages, prompt and text"},
      {R"({"prompt": "x", "text": "y"})", "prompt and text are two prompts"},
      {R"({"prompt": "x", "messages": [{"role": "user", "content": "y"}]})", "more than one of"},
      {R"({"messages": []})", "messages is [], expected a list of messages"},
      {R"({"messages": ["x"]})", "messages[0] is \"x\", expected an object"},
      {R"({"messages": [{"content": "x"}]})", "expected a role that is a text"},
      {R"({"messages": [{"role": "user"}]})", "expected a content beside the role"},
      {R"({"messages": [{"role": "user", "content": 5}]})", "messages[0].content is 5"},
      {R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})",
       "messages[0].content is {\"type\":\"image_url\"}"},
      {R"({"prompt": "x", "temperature": "hot"})", "temperature is \"hot\", expected a number"},
      {R"({"prompt": "x", "temperature": -1})", "temperature is -1, expected a number from 0"},
      {R"({"prompt": "x", "top_p": 2})", "top_p is 2, expected a number from 0 to 1"},
      {R"({"prompt": "x", "max_tokens": 1.5})", "max_tokens is 1.5, expected a whole number"},
      {R"({"prompt": "x", "max_tokens": -2})", "max_tokens is -2"},
      {R"({"prompt": "x", "max_tokens": 1e300})", "max_tokens is 1e+300"},
      {R"({"prompt": "x", "n": 0})", "n is 0, expected a whole number from 1 to 4096"},
      {R"({"prompt": "x", "seed": -1})", "seed is -1, expected a whole number from 0 to 2^64"},
      {R"({"prompt": "x", "stop": ""})", "stop is \"\""},
      {R"({"prompt": "x", "stop": ["a", 5]})", "stop is [\"a\",5]"},
      {R"({"prompt": "x", "ignore_eos": 1})", "ignore_eos is 1, expected true or false"},
      {R"({"prompt": "x", "logprobs": "yes"})", "logprobs is \"yes\""},
      {R"({"prompt": "x", "top_logprobs": 21})", "top_logprobs is 21"},
      {R"({"prompt": "x", "logit_bias": {"a": 1}})", "logit_bias is {\"a\":1}"},
      {R"({"prompt": "x", "logit_bias": {"5": 101}})", "logit_bias of token 5 is 101"},
      {R"({"prompt": "x", "tools": [{}]})", "need messages"},
      {R"({"prompt": "x", "id": 1.5})", "id is 1.5, expected a text or a whole number"},
      {R"({"prompt": "x", "id": 1, "custom_id": 2})", "no second name"},
      {R"({"prompt": "x", "response_format": {"type": "json_object"}})", "cannot do that yet"},
      {R"({"prompt": "x", "min_tokens": 5})", "min_tokens is given"},
  };
  for (const auto& [text, part] : cases) EXPECT_THAT(refusal(text), HasSubstr(part)) << text;
}

TEST(RequestLine, SlipsOfTheFingersAreNotLeftOutSilently) {
  EXPECT_THAT(refusal(R"({"prompt": "x", "temprature": 1})"),
              HasSubstr("did you mean temperature"));
  EXPECT_THAT(refusal(R"({"prompt": "x", "maxTokens": 1})"), HasSubstr("did you mean max_tokens"));
  EXPECT_THAT(refusal(R"({"prompt": "x", "top-p": 1})"), HasSubstr("did you mean top_p"));
  EXPECT_THAT(refusal(R"({"promt": "x"})"), HasSubstr("did you mean prompt"));
  EXPECT_THAT(refusal(R"({"prompt": "x", "sede": 1})"), HasSubstr("did you mean seed"));
  const RequestLine line = parse(R"({"prompt": "x", "answer": "42", "subject": "maths", "k": 3})");
  EXPECT_THAT(line.body.ignored, ElementsAre("answer", "subject", "k"));
}

TEST(RequestLine, SettingsOfOthersThatAskForNothingAreFine) {
  EXPECT_EQ(
      refusal(R"({"prompt": "x", "response_format": {"type": "text"}, "best_of": 1, "echo": false,
      "suffix": null, "min_tokens": 0, "stop_token_ids": [], "add_generation_prompt": true})"),
      "accepted");
}

}  // namespace
}  // namespace kogia
