// The gradients that are matrix products, linear_wgrad and attention_vjp: every instruction set
// against the definitions in f64, and the bits that the order of gradients promises.

#include <algorithm>
#include <numeric>

#include "device/device_testing.h"
#include "device/reference/gradients.h"
#include "tensor/view.h"

namespace kogia::testing {
namespace {

using Reals = std::vector<double>;

Reals reals(const std::vector<float>& x) { return {x.begin(), x.end()}; }
std::vector<float> floats(const Reals& x) {
  std::vector<float> out;
  for (const double v : x) out.push_back(static_cast<float>(v));
  return out;
}

// Rows [begin, begin + n) in blocks of `size`.
std::vector<TokenBlock> blocks_of(Index begin, Index n, Index size = kTokenBlock) {
  std::vector<TokenBlock> blocks;
  for (Index i = 0; i < n; i += size) {
    blocks.push_back({.begin = begin + i, .n = std::min(size, n - i)});
  }
  return blocks;
}

/// Two dimensions with room beside each row; what lies there must stay.
struct Strided {
  Strided(Index rows, Index n, std::uint64_t seed, Index room = 3)
      : rows(rows), n(n), stride(n + room), data(random_floats(rows * stride, seed)) {}
  Reals dense() const {
    Reals out;
    for (Index r = 0; r < rows; ++r) {
      out.insert(out.end(), data.begin() + r * stride, data.begin() + r * stride + n);
    }
    return out;
  }
  void expect(const Reals& expected, const Strided& before, Tolerance tolerance) const {
    expect_near(floats(dense()), floats(expected), tolerance);
    for (Index r = 0; r < rows; ++r) {
      for (Index i = n; i < stride; ++i) {
        const auto at = static_cast<std::size_t>(r * stride + i);
        ASSERT_EQ(data[at], before.data[at]) << "written beside row " << r;
      }
    }
  }
  Index rows, n, stride;
  std::vector<float> data;
};

struct WgradCase {
  WgradCase(Index rows, Index n, Index cols)
      : x(rows, cols, 1), dy(rows, n, 2), dw(n, cols, 3), db(random_floats(n, 4)) {}
  LinearWgradArgs args(std::span<const TokenBlock> blocks, bool bias = true) {
    return {.x = x.data.data(),
            .x_stride = x.stride,
            .dy = dy.data.data(),
            .dy_stride = dy.stride,
            .n = dy.n,
            .cols = x.n,
            .blocks = blocks,
            .dw = dw.data.data(),
            .dw_stride = dw.stride,
            .db = bias ? db.data() : nullptr};
  }
  Strided x, dy, dw;
  std::vector<float> db;
};

TEST(LinearWgrad, EveryInstructionSetMatchesTheDefinition) {
  const std::tuple<Index, Index, Index> shapes[] = {{0, 3, 5},   {1, 1, 1},     {1, 17, 49},
                                                    {5, 8, 48},  {127, 7, 65},  {128, 64, 16},
                                                    {129, 9, 1}, {300, 95, 193}};
  for (const auto& [rows, n, cols] : shapes) {
    SCOPED_TRACE(::testing::Message() << rows << " rows, " << n << " x " << cols);
    const WgradCase start(rows, n, cols);
    Reals dw = start.dw.dense(), db = reals(start.db);
    const Reals x = start.x.dense(), dy = start.dy.dense();
    reference::linear_vjp<double>(x.data(), nullptr, dy.data(), rows, n, cols, nullptr, dw.data(),
                                  db.data());
    const auto blocks = blocks_of(0, rows, /*size=*/100);
    for_each_cpu_target([&](Device& device) {
      WgradCase c = start;
      const LinearWgradArgs args = c.args(blocks);
      device.linear_wgrad({&args, 1});
      const Tolerance tolerance = {.abs = 3e-7 * static_cast<double>(rows + 10), .rel = 1e-6};
      c.dw.expect(dw, start.dw, tolerance);
      expect_near(c.db, floats(db), tolerance);
    });
  }
}

TEST(LinearWgrad, ManyProductsInOneCallAreThoseOfManyCalls) {
  const std::pair<Index, Index> shapes[] = {{40, 33}, {300, 100}, {1, 64}};
  const auto blocks = blocks_of(0, 200);
  for_each_cpu_target([&](Device& device) {
    std::vector<WgradCase> together, apart;
    for (const auto& [n, cols] : shapes) together.emplace_back(200, n, cols);
    apart = together;
    std::vector<LinearWgradArgs> args;
    for (WgradCase& c : together) args.push_back(c.args(blocks, args.size() != 1));
    args[2].blocks = {};  // an expert without tokens
    device.linear_wgrad(args);
    for (std::size_t i = 0; i < 2; ++i) {
      const LinearWgradArgs alone = apart[i].args(blocks, i != 1);
      device.linear_wgrad({&alone, 1});
    }
    for (std::size_t i = 0; i < apart.size(); ++i) {
      EXPECT_TRUE(same_bits(together[i].dw.data, apart[i].dw.data));
      EXPECT_TRUE(same_bits(together[i].db, apart[i].db));
    }
  });
}

// Accumulating over micro-batches gives the bits of one large batch, whatever the threads.
TEST(LinearWgrad, BitsDependOnTheBlocksAlone) {
  const Index first = 210, second = 150, n = 70, cols = 131;
  auto all = blocks_of(0, first);
  const auto of_a = all, of_b = blocks_of(first, second);
  all.insert(all.end(), of_b.begin(), of_b.end());
  for (const Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    const WgradCase start(first + second, n, cols);
    WgradCase once = start;
    for (const int n_threads : {1, 2, 3}) {
      const auto device = make_cpu_device({.n_threads = n_threads, .isa = isa});
      WgradCase whole = start, parts = start;
      const LinearWgradArgs both = whole.args(all), a = parts.args(of_a), b = parts.args(of_b);
      device->linear_wgrad({&both, 1});
      device->linear_wgrad({&a, 1});
      device->linear_wgrad({&b, 1});
      EXPECT_TRUE(same_bits(whole.dw.data, parts.dw.data));
      EXPECT_TRUE(same_bits(whole.db, parts.db));
      if (n_threads == 1) once = whole;
      EXPECT_TRUE(same_bits(whole.dw.data, once.dw.data)) << n_threads << " threads";
      EXPECT_TRUE(same_bits(whole.db, once.db)) << n_threads << " threads";
    }
  }
}

// ---------------------------------------------------------------------------------------------------

struct AttentionShape {
  Index n_heads, n_kv_heads, k_dim, v_dim;
  bool latent = false;
};

struct AttentionCase {
  AttentionCase(const AttentionShape& shape, Index rows)
      : shape(shape),
        q(rows, shape.n_heads * shape.k_dim, 1),
        k(rows, shape.n_kv_heads * shape.k_dim, 2),
        v(rows, shape.n_kv_heads * shape.v_dim, 3),
        dout(rows, shape.n_heads * shape.v_dim, 4),
        dq(rows, q.n, 5),
        dk(rows, k.n, 6),
        dv(rows, v.n, 7) {}

  AttentionVjpArgs args(std::span<const SequenceRows> sequences) {
    Strided& values = shape.latent ? k : v;
    return {.q = q.data.data(),
            .q_stride = q.stride,
            .k = k.data.data(),
            .k_stride = k.stride,
            .v = values.data.data(),
            .v_stride = values.stride,
            .dout = dout.data.data(),
            .dout_stride = dout.stride,
            .dq = dq.data.data(),
            .dk = dk.data.data(),
            .dv = shape.latent ? dk.data.data() : dv.data.data(),
            .n_heads = shape.n_heads,
            .n_kv_heads = shape.n_kv_heads,
            .k_dim = shape.k_dim,
            .v_dim = shape.v_dim,
            .scale = 0.3F,
            .sequences = sequences};
  }

  AttentionShape shape;
  Strided q, k, v, dout, dq, dk, dv;
};

Reals part(const Reals& all, Index first, Index rows, Index n) {
  return {all.begin() + first * n, all.begin() + (first + rows) * n};
}
void put(const Reals& from, Reals& all, Index first, Index n) {
  std::copy(from.begin(), from.end(), all.begin() + first * n);
}

struct AttentionGradients {
  Reals dq, dk, dv;
};

AttentionGradients expected_attention(const AttentionCase& c,
                                      std::span<const SequenceRows> sequences) {
  AttentionGradients g = {c.dq.dense(), c.dk.dense(), c.dv.dense()};
  const Reals q = c.q.dense(), k = c.k.dense(), dout = c.dout.dense();
  Reals v = c.v.dense();
  const AttentionShape& s = c.shape;
  if (s.latent) {
    v.clear();
    for (Index r = 0; r < c.k.rows; ++r) {
      v.insert(v.end(), k.begin() + r * s.k_dim, k.begin() + r * s.k_dim + s.v_dim);
    }
  }
  for (const SequenceRows& seq : sequences) {
    const Index first = seq.row_begin, n = seq.n_rows;
    const reference::DenseAttention a = {.n_tokens = n,
                                         .n_heads = s.n_heads,
                                         .n_kv_heads = s.n_kv_heads,
                                         .k_dim = s.k_dim,
                                         .v_dim = s.v_dim,
                                         .scale = static_cast<double>(0.3F)};
    Reals dq = part(g.dq, first, n, c.dq.n), dk = part(g.dk, first, n, c.dk.n),
          dv = part(g.dv, first, n, c.dv.n);
    if (s.latent) std::fill(dv.begin(), dv.end(), 0);
    reference::dense_attention_vjp(a, part(q, first, n, c.q.n).data(),
                                   part(k, first, n, c.k.n).data(), part(v, first, n, c.v.n).data(),
                                   part(dout, first, n, c.dout.n).data(), dq.data(), dk.data(),
                                   dv.data());
    for (Index r = 0; s.latent && r < n; ++r) {
      for (Index i = 0; i < s.v_dim; ++i) {
        dk[static_cast<std::size_t>(r * s.k_dim + i)] +=
            dv[static_cast<std::size_t>(r * s.v_dim + i)];
      }
    }
    put(dq, g.dq, first, c.dq.n);
    put(dk, g.dk, first, c.dk.n);
    if (!s.latent) put(dv, g.dv, first, c.dv.n);
  }
  return g;
}

constexpr AttentionShape kShapes[] = {
    {.n_heads = 1, .n_kv_heads = 1, .k_dim = 1, .v_dim = 1},
    {.n_heads = 4, .n_kv_heads = 2, .k_dim = 24, .v_dim = 16},
    {.n_heads = 3, .n_kv_heads = 3, .k_dim = 50, .v_dim = 33},
    {.n_heads = 6, .n_kv_heads = 2, .k_dim = 7, .v_dim = 64},
    {.n_heads = 5, .n_kv_heads = 1, .k_dim = 40, .v_dim = 27, .latent = true},
    {.n_heads = 2, .n_kv_heads = 1, .k_dim = 16, .v_dim = 16, .latent = true},
};

TEST(AttentionVjp, EveryInstructionSetMatchesTheDefinition) {
  // Lengths around tiles and blocks, one row, none; rows of no sequence stay as they are.
  const std::vector<SequenceRows> sequences = {{.row_begin = 2, .n_rows = 1},
                                               {.row_begin = 3, .n_rows = 0},
                                               {.row_begin = 3, .n_rows = 65},
                                               {.row_begin = 70, .n_rows = 17},
                                               {.row_begin = 90, .n_rows = 203}};
  for (const AttentionShape& shape : kShapes) {
    SCOPED_TRACE(::testing::Message() << shape.n_heads << "/" << shape.n_kv_heads << " heads of "
                                      << shape.k_dim << ", " << shape.v_dim);
    const AttentionCase start(shape, 295);
    const AttentionGradients expected = expected_attention(start, sequences);
    for_each_cpu_target([&](Device& device) {
      AttentionCase c = start;
      device.attention_vjp(c.args(sequences));
      c.dq.expect(expected.dq, start.dq, {.abs = 2e-5, .rel = 1e-5});
      c.dk.expect(expected.dk, start.dk, {.abs = 3e-5, .rel = 1e-5});
      c.dv.expect(expected.dv, start.dv, {.abs = 3e-5, .rel = 1e-5});
    });
  }
}

TEST(AttentionVjp, LargeScoresDoNotOverflow) {
  const std::vector<SequenceRows> sequences = {{.row_begin = 0, .n_rows = 40}};
  for_each_cpu_target([&](Device& device) {
    AttentionCase c({.n_heads = 1, .n_kv_heads = 1, .k_dim = 8, .v_dim = 8}, 40);
    for (float& x : c.q.data) x *= 100;
    const AttentionGradients expected = expected_attention(c, sequences);
    const AttentionCase start = c;
    device.attention_vjp(c.args(sequences));
    c.dq.expect(expected.dq, start.dq, {.abs = 1e-2, .rel = 1e-3});
    c.dv.expect(expected.dv, start.dv, {.abs = 1e-3, .rel = 1e-3});
  });
}

TEST(AttentionVjp, BitsOfASequenceAreItsOwn) {
  const std::vector<SequenceRows> sequences = {{.row_begin = 0, .n_rows = 130},
                                               {.row_begin = 130, .n_rows = 9},
                                               {.row_begin = 140, .n_rows = 200}};
  for (const AttentionShape& shape : {kShapes[1], kShapes[4]}) {
    for (const Isa isa : available_isas()) {
      SCOPED_TRACE(name(isa));
      const AttentionCase start(shape, 340);
      AttentionCase once = start;
      for (const int n_threads : {1, 2, 3}) {
        const auto device = make_cpu_device({.n_threads = n_threads, .isa = isa});
        AttentionCase together = start, apart = start;
        device->attention_vjp(together.args(sequences));
        for (const std::size_t i : {std::size_t{2}, std::size_t{0}, std::size_t{1}}) {
          device->attention_vjp(apart.args(std::span(sequences).subspan(i, 1)));
        }
        if (n_threads == 1) once = together;
        for (const AttentionCase* c : {&together, &apart}) {
          EXPECT_TRUE(same_bits(c->dq.data, once.dq.data)) << n_threads << " threads";
          EXPECT_TRUE(same_bits(c->dk.data, once.dk.data)) << n_threads << " threads";
          EXPECT_TRUE(same_bits(c->dv.data, once.dv.data)) << n_threads << " threads";
        }
      }
    }
  }
}

}  // namespace
}  // namespace kogia::testing
