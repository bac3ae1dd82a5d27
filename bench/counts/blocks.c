// A QEMU plugin for user-mode emulation: counts how often each translated block of guest code runs, and says in which file the
// block lies. For bench/counts.sh; counts.py turns the list into instructions for each symbol.
//
//   qemu-aarch64 -plugin blocks.so,out=FILE PROGRAM ...
//
// FILE gets one line for each block that ran: executions, instructions in the block, offset in the file (hex), path of the
// file; "-" and the address where the code lies in no file (vdso, code written at run time). A block that QEMU translated
// again is listed again. A block counts whole even where a signal leaves it early: none does in what is measured here.
//
// Debian 12's qemu-user has the plugin interface but no header for it, so the few functions used are declared here, as in
// include/qemu/qemu-plugin.h of QEMU 7.2 to 10.0. Only the version number differs between them: 7.2 takes 0 or 1, 9.0 and
// later ask for 2 or more (they dropped inline counters without a scoreboard, which this file does without).
#define _POSIX_C_SOURCE 200809L  // strdup

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef BLOCKS_PLUGIN_VERSION
#define BLOCKS_PLUGIN_VERSION 1
#endif

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { kPluginNoRegisters = 0 };  // QEMU_PLUGIN_CB_NO_REGS

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*callback)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*callback)(unsigned, void *), int flags,
                                          void *data);
void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id id, void (*callback)(plugin_id, unsigned, int64_t, int64_t));
void qemu_plugin_register_atexit_cb(plugin_id id, void (*callback)(plugin_id, void *), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn);

#define EXPORT __attribute__((visibility("default")))
EXPORT extern const int qemu_plugin_version;
EXPORT const int qemu_plugin_version = BLOCKS_PLUGIN_VERSION;
EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv);

struct Mapping {
  uintptr_t begin, end;
  uint64_t offset;
  char *path;
};

struct Block {
  _Atomic uint64_t executions;
  uint64_t insns, offset;
  const char *path;  // NULL: in no file
  struct Block *next;
};

// QEMU holds a lock of its own around translation, so blocks are made by one thread at a time; they are only counted by many.
static struct Block *blocks;
static struct Mapping *mappings;
static size_t mapping_count;
static atomic_bool mappings_stale = true;
static const char *out_path;

static void *Checked(void *memory) {
  if (memory == NULL) abort();
  return memory;
}

// Guest memory is mapped memory of this process, so the kernel's list of its files holds the guest's. Paths are kept for good:
// blocks point at them.
static void ReadMappings(void) {
  FILE *file = fopen("/proc/self/maps", "r");
  if (file == NULL) return;
  char line[4352];
  mapping_count = 0;
  while (fgets(line, sizeof line, file) != NULL) {
    struct Mapping mapping;
    int path_at = 0;
    const int fields = sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %" SCNx64 " %*s %*s %n", &mapping.begin, &mapping.end,
                              &mapping.offset, &path_at);
    if (fields < 3 || path_at == 0 || line[path_at] != '/') continue;
    line[strcspn(line, "\n")] = 0;
    mapping.path = Checked(strdup(line + path_at));
    mappings = Checked(realloc(mappings, (mapping_count + 1) * sizeof *mappings));
    mappings[mapping_count++] = mapping;
  }
  fclose(file);
}

static void CountBlock(unsigned vcpu, void *data) {
  (void)vcpu;
  atomic_fetch_add_explicit(&((struct Block *)data)->executions, 1, memory_order_relaxed);
}

static void OnTranslation(plugin_id id, struct qemu_plugin_tb *translated) {
  (void)id;
  if (atomic_exchange(&mappings_stale, false)) ReadMappings();
  struct Block *block = Checked(calloc(1, sizeof *block));
  const uintptr_t address = (uintptr_t)qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(translated, 0));
  block->insns = qemu_plugin_tb_n_insns(translated);
  block->offset = address;
  for (size_t i = 0; i < mapping_count; ++i) {
    if (address < mappings[i].begin || address >= mappings[i].end) continue;
    block->path = mappings[i].path;
    block->offset = address - mappings[i].begin + mappings[i].offset;
    break;
  }
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_cb(translated, CountBlock, kPluginNoRegisters, block);
}

// Any call may have mapped a library or taken one away; reading the list again before the next translation is cheap enough
// not to ask which.
static void OnSystemCall(plugin_id id, unsigned vcpu, int64_t number, int64_t result) {
  (void)id, (void)vcpu, (void)number, (void)result;
  atomic_store(&mappings_stale, true);
}

static void OnExit(plugin_id id, void *data) {
  (void)id, (void)data;
  FILE *file = fopen(out_path, "w");
  if (file == NULL) {
    perror(out_path);
    return;
  }
  for (const struct Block *block = blocks; block != NULL; block = block->next) {
    if (block->executions == 0) continue;
    fprintf(file, "%" PRIu64 " %" PRIu64 " %" PRIx64 " %s\n", block->executions, block->insns, block->offset,
            block->path != NULL ? block->path : "-");
  }
  fclose(file);
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; ++i) {
    if (strncmp(argv[i], "out=", 4) == 0) out_path = Checked(strdup(argv[i] + 4));
  }
  if (out_path == NULL) {
    fprintf(stderr, "blocks: needs out=FILE\n");
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, OnTranslation);
  qemu_plugin_register_vcpu_syscall_ret_cb(id, OnSystemCall);
  qemu_plugin_register_atexit_cb(id, OnExit, NULL);
  return 0;
}
