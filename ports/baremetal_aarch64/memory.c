/* The address map of the image, and the four memory functions that libacorn.a and the compiler call. */
#include <stddef.h>
#include <stdint.h>

/* Of the linker script. */
extern char acorn_read_only_begin[], acorn_read_only_end[], acorn_writable_begin[], acorn_ram_end[];

enum { block_shift = 21, block_count = 2048 }; /* 2 MiB: what an entry of the second level maps; 4 GiB of them */

/* Descriptor bits. Addresses are the same on both sides. */
static const uint64_t valid_block = 1, valid_table = 3;
static const uint64_t memory = 0u << 2 | 3u << 8;       /* attribute 0 of MAIR_EL1, inner shareable */
static const uint64_t device = 1u << 2;                 /* attribute 1 */
static const uint64_t read_only = 2u << 6;
static const uint64_t accessed = 1u << 10;              /* else the first access faults */
static const uint64_t no_execute = (uint64_t)3 << 53;   /* at EL0 and EL1 */

/* Written whole by acorn_map_memory while the caches are off, so in no section that is cleared later. */
__attribute__((section(".tables"), aligned(4096))) uint64_t acorn_table[512];
__attribute__((section(".tables"), aligned(4096))) static uint64_t blocks[block_count];

_Static_assert(ACORN_BAREMETAL_UART + 4096ull <= (uint64_t)block_count << block_shift, "the serial line lies beyond the map");

/* Drops what the caches hold of the tables. */
static void forget(const uint64_t *begin, const uint64_t *end) {
  for (uintptr_t line = (uintptr_t)begin; line < (uintptr_t)end; line += 16) __asm__ volatile("dc ivac, %0" ::"r"(line) : "memory");
}

static void forget_tables(void) {
  forget(acorn_table, acorn_table + 512);
  forget(blocks, blocks + block_count);
  __asm__ volatile("dsb sy" ::: "memory");
}

static void map(uintptr_t begin, uintptr_t end, uint64_t attributes) {
  for (uintptr_t block = begin >> block_shift; block < (end + (1u << block_shift) - 1) >> block_shift; ++block) {
    blocks[block] = (uint64_t)block << block_shift | attributes | accessed | valid_block;
  }
}

/* Code and model may be read and run, the rest of the memory written, the serial line spoken to; everything else faults, a null
 * pointer too. Runs with the MMU off: every access is aligned. */
void acorn_map_memory(void) {
  forget_tables(); /* a line that is written back later would lie over what is written now, past the caches */
  for (uint32_t i = 0; i < block_count; ++i) blocks[i] = 0;
  for (uint32_t i = 0; i < 512; ++i) acorn_table[i] = i < 4 ? (uintptr_t)&blocks[512 * i] | valid_table : 0;
  map((uintptr_t)acorn_read_only_begin, (uintptr_t)acorn_read_only_end, memory | read_only);
  map((uintptr_t)acorn_writable_begin, (uintptr_t)acorn_ram_end, memory | no_execute);
  map(ACORN_BAREMETAL_UART, ACORN_BAREMETAL_UART + 4096, device | no_execute);
  __asm__ volatile("dsb sy" ::: "memory");
  forget_tables(); /* and one that was read meanwhile is older than the tables */
}

/* Words where both sides are aligned alike, bytes elsewhere: what the library copies is small or aligned. */
static int both_aligned(const void *a, const void *b) { return (((uintptr_t)a | (uintptr_t)b) & 7) == 0; }

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
  uint8_t *out = to;
  const uint8_t *in = from;
  size_t i = 0;
  if (both_aligned(to, from)) {
    for (; i + 8 <= bytes; i += 8) *(uint64_t *)(out + i) = *(const uint64_t *)(in + i);
  }
  for (; i < bytes; ++i) out[i] = in[i];
  return to;
}

void *memmove(void *to, const void *from, size_t bytes) {
  uint8_t *out = to;
  const uint8_t *in = from;
  if (out <= in || out >= in + bytes) {
    for (size_t i = 0; i < bytes; ++i) out[i] = in[i];
  } else {
    for (size_t i = bytes; i > 0; --i) out[i - 1] = in[i - 1];
  }
  return to;
}

void *memset(void *to, int value, size_t bytes) {
  uint8_t *out = to;
  size_t i = 0;
  if (((uintptr_t)to & 7) == 0) {
    const uint64_t word = 0x0101010101010101u * (uint8_t)value;
    for (; i + 8 <= bytes; i += 8) *(uint64_t *)(out + i) = word;
  }
  for (; i < bytes; ++i) out[i] = (uint8_t)value;
  return to;
}

int memcmp(const void *a, const void *b, size_t bytes) {
  const uint8_t *left = a, *right = b;
  for (size_t i = 0; i < bytes; ++i) {
    if (left[i] != right[i]) return left[i] < right[i] ? -1 : 1;
  }
  return 0;
}
