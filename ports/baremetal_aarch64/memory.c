/* The address map of the image, and the four memory functions that libacorn.a and the compiler call. */
#include <stddef.h>
#include <stdint.h>

/* Of the linker script. */
extern char acorn_read_only_begin[], acorn_read_only_end[], acorn_writable_begin[], acorn_ram_end[];

#define BLOCK_SHIFT 21 /* 2 MiB: what an entry of the second level maps */
#define BLOCKS 2048u   /* 4 GiB */

/* Descriptor bits. Addresses are the same on both sides. */
#define VALID_BLOCK 1u
#define VALID_TABLE 3u
#define MEMORY (0u << 2 | 3u << 8)     /* attribute 0 of MAIR_EL1, inner shareable */
#define DEVICE (1u << 2)               /* attribute 1 */
#define READ_ONLY (2u << 6)
#define ACCESSED (1u << 10)            /* else the first access faults */
#define NO_EXECUTE (3ull << 53)        /* at EL0 and EL1 */

/* Written whole by acorn_map_memory while the caches are off, so in no section that is cleared later. */
__attribute__((section(".tables"), aligned(4096))) uint64_t acorn_table[512];
__attribute__((section(".tables"), aligned(4096))) static uint64_t blocks[BLOCKS];

static void map(uintptr_t begin, uintptr_t end, uint64_t attributes) {
  for (uintptr_t block = begin >> BLOCK_SHIFT; block < (end + (1u << BLOCK_SHIFT) - 1) >> BLOCK_SHIFT; ++block) {
    blocks[block] = (uint64_t)block << BLOCK_SHIFT | attributes | ACCESSED | VALID_BLOCK;
  }
}

/* Code and model may be read and run, the rest of the memory written, the serial line spoken to; everything else faults, a null
 * pointer too. Runs with the MMU off: every access is aligned. */
void acorn_map_memory(void) {
  for (uint32_t i = 0; i < BLOCKS; ++i) blocks[i] = 0;
  for (uint32_t i = 0; i < 512; ++i) acorn_table[i] = i < 4 ? (uintptr_t)&blocks[512 * i] | VALID_TABLE : 0;
  map((uintptr_t)acorn_read_only_begin, (uintptr_t)acorn_read_only_end, MEMORY | READ_ONLY);
  map((uintptr_t)acorn_writable_begin, (uintptr_t)acorn_ram_end, MEMORY | NO_EXECUTE);
  map(ACORN_BAREMETAL_UART, ACORN_BAREMETAL_UART + 4096, DEVICE | NO_EXECUTE);
  /* What the caches hold of the tables from before the start is older than what was just written past them. */
  __asm__ volatile("dsb sy" ::: "memory");
  for (uintptr_t line = (uintptr_t)acorn_table; line < (uintptr_t)(acorn_table + 512); line += 16) {
    __asm__ volatile("dc ivac, %0" ::"r"(line) : "memory");
  }
  for (uintptr_t line = (uintptr_t)blocks; line < (uintptr_t)(blocks + BLOCKS); line += 16) {
    __asm__ volatile("dc ivac, %0" ::"r"(line) : "memory");
  }
  __asm__ volatile("dsb sy" ::: "memory");
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
