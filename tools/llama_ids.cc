// llama_ids MODEL IDS_FILE N LOGITS_FILE: llama.cpp without its tokenizer and its sampler.
//
// Evaluates the ids of IDS_FILE (decimal numbers) in one step, continues with the N likeliest tokens one by
// one (of equal ones the lowest id; an end token is one like another), prints those on a line, and writes the
// logits after every position but the last token's, [n_ids + N - 1, n_vocab] f32, to LOGITS_FILE.
// The cache is f32 and attention unfused, so that what is left of rounding is that of the matrix products. Run again
// it gives the same bits: twelve times out of twelve for three tiny models. tools/interop_convert.py uses it.

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

#include "llama.h"

namespace {

void log_errors(ggml_log_level level, const char* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

class Runner {
 public:
  Runner(const char* path, std::size_t n_ctx) {
    llama_model_params of_model = llama_model_default_params();
    of_model.check_tensors = true;
    model_ = llama_model_load_from_file(path, of_model);
    if (model_ == nullptr) throw std::runtime_error("the model does not load");
    llama_context_params p = llama_context_default_params();
    p.n_ctx = p.n_batch = p.n_ubatch = static_cast<std::uint32_t>(n_ctx);
    p.n_threads = p.n_threads_batch = 1;
    p.type_k = p.type_v = GGML_TYPE_F32;
    p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    context_ = llama_init_from_model(model_, p);
    if (context_ == nullptr) throw std::runtime_error("no context");
    n_vocab_ = llama_vocab_n_tokens(llama_model_get_vocab(model_));
  }
  ~Runner() {
    llama_free(context_);
    llama_model_free(model_);
  }
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  /// Evaluates ids after all earlier ones and writes the logits after each; returns the likeliest next token.
  llama_token step(const std::vector<llama_token>& ids, std::FILE* out) {
    llama_batch batch = llama_batch_init(static_cast<std::int32_t>(ids.size()), 0, 1);
    for (const llama_token id : ids) {
      const int i = batch.n_tokens++;
      batch.token[i] = id;
      batch.pos[i] = next_pos_++;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = 1;
    }
    const int status = llama_decode(context_, batch);
    llama_batch_free(batch);
    if (status != 0) throw std::runtime_error("llama_decode failed");
    const float* row = nullptr;
    for (int i = 0; i < static_cast<int>(ids.size()); ++i) {
      row = llama_get_logits_ith(context_, i);
      if (row == nullptr) throw std::runtime_error("no logits");
      if (std::fwrite(row, sizeof(float), static_cast<std::size_t>(n_vocab_), out) !=
          static_cast<std::size_t>(n_vocab_)) {
        throw std::runtime_error("the logits cannot be written");
      }
    }
    return static_cast<llama_token>(std::max_element(row, row + n_vocab_) - row);
  }

 private:
  llama_model* model_ = nullptr;
  llama_context* context_ = nullptr;
  int n_vocab_ = 0;
  llama_pos next_pos_ = 0;
};

void run(char** argv) {
  std::ifstream in(argv[2]);
  std::vector<llama_token> ids{std::istream_iterator<llama_token>(in), {}};
  const std::size_t n_greedy = std::stoul(argv[3]);
  if (ids.empty() || n_greedy == 0) throw std::runtime_error("no ids, or none to find");
  std::FILE* out = std::fopen(argv[4], "wb");
  if (out == nullptr) throw std::runtime_error("the file of logits cannot be written");
  Runner runner(argv[1], ids.size() + n_greedy);
  for (std::size_t i = 0; i < n_greedy; ++i) {
    const llama_token next = runner.step(ids, out);
    std::printf("%d%c", next, i + 1 < n_greedy ? ' ' : '\n');
    ids = {next};
  }
  std::fclose(out);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fputs("usage: llama_ids MODEL IDS_FILE N LOGITS_FILE\n", stderr);
    return 2;
  }
  llama_log_set(log_errors, nullptr);
  llama_backend_init();
  try {
    run(argv);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
