#pragma once
// Which bytes of a rendered chat the template itself wrote, as opposed to the messages.
// docs/decisions/0012-control-tokens-in-chats.md

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/tokenizer.h"

namespace kogia {

class TemplateVariables;

/// Finds the control tokens that a template writes.
///
/// Each place in the template's source that spells an added token is rendered once more with
/// private characters in place of the token's. Where such a rendering gives the same text but for
/// these characters, the bytes under them came from that place: no message holds those characters.
/// What is not shown to come from the template counts as message text.
class TrustedText {
 public:
  TrustedText(std::string source, const Tokenizer& tokenizer, std::string bos_token,
              std::string eos_token);

  /// Ascending, apart ranges of `text`, the rendering of the unchanged template. `variables` is the
  /// JSON object that it was rendered with (bos_token and eos_token are set here).
  std::vector<ByteRange> find(const std::string& text, std::string_view messages_json) const;

  /// The variables with bos_token and eos_token, as JSON.
  std::string with_specials(std::string_view variables_json, std::string_view bos,
                            std::string_view eos) const;
  const std::string& source() const { return source_; }
  const std::string& bos() const { return bos_; }
  const std::string& eos() const { return eos_; }

 private:
  // A place in the source, or one of the two variables.
  struct Site {
    enum Where { kSource, kBos, kEos } where;
    ByteRange range;  // of the source
    std::string token;
  };
  using Shadow =
      std::vector<std::pair<char32_t, char32_t>>;  // a character, its private twin; sorted

  Shadow choose_shadow(std::string_view variables_json) const;
  bool mark(const std::string& text, std::string_view variables_json, const Shadow& shadow,
            const std::vector<const Site*>& sites, std::vector<bool>& trusted) const;
  std::set<std::string> still_unknown(const std::string& text,
                                      const std::vector<bool>& trusted) const;

  std::string source_, bos_, eos_;
  AddedTokenMatcher tokens_;
  std::vector<Site> sites_;
};

}  // namespace kogia
