/* A plugin for qemu-user: how many instructions a program executes, all threads together. The one figure about a board that needs no
 * board; it is not a time. Used by ./count-instructions.
 *
 * The declarations are those of qemu-plugin.h, API version 1 (QEMU 6.0 to 9.0): Debian ships the emulator without the header. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t id_t_;
struct qemu_plugin_tb;
enum op { ADD_U64 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(id_t_, void (*)(id_t_, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum op, void *, uint64_t);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern void qemu_plugin_register_atexit_cb(id_t_, void (*)(id_t_, void *), void *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t executed;
static char out[4096];

/* A block of code was translated: from now on each run of it adds its length. */
static void translated(id_t_ id, struct qemu_plugin_tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &executed, qemu_plugin_tb_n_insns(block));
}

static void ended(id_t_ id, void *data) {
    (void)id, (void)data;
    FILE *file = fopen(out, "w");
    if (file == NULL || fprintf(file, "%" PRIu64 "\n", executed) < 0 || fclose(file) != 0) perror(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(id_t_ id, const void *info, int argc, char **argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || strlen(argv[0] + 4) >= sizeof out) {
        fprintf(stderr, "instructions: the one argument is out=FILE\n");
        return -1;
    }
    strcpy(out, argv[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
