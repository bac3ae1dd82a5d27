#include "kernels/rotate/pairs.h"
#include "kernels/simd_neon.h"

namespace acorn::rotate {
namespace {

// a * b - c * d
S32x16 MultiplySubtract(S16x16 a, S16x16 b, S16x16 c, S16x16 d) {
  S32x16 y = Multiply(a, b);
  y.v[0] = vmlsl_s16(y.v[0], vget_low_s16(c.v[0]), vget_low_s16(d.v[0]));
  y.v[1] = vmlsl_high_s16(y.v[1], c.v[0], d.v[0]);
  y.v[2] = vmlsl_s16(y.v[2], vget_low_s16(c.v[1]), vget_low_s16(d.v[1]));
  y.v[3] = vmlsl_high_s16(y.v[3], c.v[1], d.v[1]);
  return y;
}

template <typename Out, typename Scale>
void Rows(const Args &args) {
  const Scale scale(args.shift);
  const size_t h = args.half, heads = args.heads, head_dim = args.head_dim;
  const int32_t *multiplier = args.multiplier;
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *x_row = args.x + row * args.x_stride;
    auto *y_row = static_cast<typename Out::Type *>(args.y) + row * args.y_stride;
    const int16_t *cosine_row = args.cosine + row * h, *sine_row = args.sine + row * h;
    ForBlocks(h, [=](size_t i, size_t count) ACORN_INLINE_BODY {
      const S16x16 cosine = Load(cosine_row + i, count), sine = Load(sine_row + i, count);
      const int16_t *x = x_row + i;
      auto *y = y_row + i;
      for (size_t head = 0; head < heads; ++head, x += head_dim, y += head_dim) {
        const int32x4_t factor = vdupq_n_s32(multiplier[head]);
        const S16x16 first = Load(x, count), second = Load(x + h, count);
        const S32x16 low = MultiplySubtract(first, cosine, second, sine);
        const S32x16 high = MultiplyAdd(Multiply(second, cosine), first, sine);
        Out::Store(y, count, Apply(scale, low, factor), 0);
        Out::Store(y + h, count, Apply(scale, high, factor), 0);
      }
    });
    ForBlocks(head_dim - 2 * h, [=](size_t i, size_t count) ACORN_INLINE_BODY {
      for (size_t head = 0; head < heads; ++head) {
        const size_t at = head * head_dim + 2 * h + i;
        const S16x16 one = {{vdupq_n_s16(1 << 14), vdupq_n_s16(1 << 14)}};
        Out::Store(y_row + at, count, Apply(scale, Multiply(Load(x_row + at, count), one), vdupq_n_s32(multiplier[head])), 0);
      }
    });
  }
}

// Both members of eight pairs at once: each times its cosine, plus its partner times the sine, of which the first takes the negative.
template <typename Out, typename Scale>
void PairRows(const Args &args) {
  using Type = typename Out::Type;
  const Scale scale(args.shift);
  ForPairBlocks<Type>(args, [&](const int16_t *x, Type *y, const int16_t *cosine, const int16_t *sine, const int32_t *multiplier,
                                size_t heads) {
    const int16x8_t c = vld1q_s16(cosine), s = vld1q_s16(sine);
    const S16x16 cosines = {{c, c}}, sines = {{vnegq_s16(s), s}};
    for (size_t head = 0; head < heads; ++head, x += args.head_dim, y += args.head_dim) {
      const S16x16 members = Load(x, kBlock), partners = {{members.v[1], members.v[0]}};
      const S32x16 turned = MultiplyAdd(Multiply(members, cosines), partners, sines);
      Out::Store(y, kBlock, Apply(scale, turned, vdupq_n_s32(multiplier[head])), 0);
    }
  });
}

template <typename Out, typename Scale>
void Rotate(const Args &args) {
  args.pairs == nullptr ? Rows<Out, Scale>(args) : PairRows<Out, Scale>(args);
}

template <typename Out>
void Rotate(const Args &args) {
  args.shift >= HighScale::kLeastShift ? Rotate<Out, HighScale>(args) : Rotate<Out, WideScale>(args);
}

}  // namespace

void RunS8Neon(const Args &args) { Rotate<StoreS8>(args); }
void RunS16Neon(const Args &args) { Rotate<StoreS16>(args); }

}  // namespace acorn::rotate
