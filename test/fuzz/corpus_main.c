/* SPDX-License-Identifier: MIT */
/* corpus_main.c -- runs a fuzz target over its corpus, without libFuzzer.
 *
 * So every input that was ever worth keeping is a test of `make check`, with
 * any compiler. Each argument is a file, or a folder of files; each file is
 * handed to the target once, as it is and cut in the middle. Reports as our
 * other tests do, so that they are counted alike. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int runs;

static void corpus_file(const char *path)
{
    uint8_t *data = NULL;
    long size = 0;
    FILE *f = fopen(path, "rb");
    if (!f)
        return;
    /* Exactly as large as the input: a read past its end is seen. */
    if (!fseek(f, 0, SEEK_END) && (size = ftell(f)) >= 0 &&
        !fseek(f, 0, SEEK_SET) && (data = malloc(size ? (size_t)size : 1)) &&
        fread(data, 1, (size_t)size, f) == (size_t)size) {
        uint8_t *half;
        LLVMFuzzerTestOneInput(data, (size_t)size);
        half = realloc(data, size > 1 ? (size_t)size / 2 : 1);
        data = half ? half : data;
        LLVMFuzzerTestOneInput(data, (size_t)size / 2);
        runs++;
        printf("[       OK ] %s\n", path);
    }
    free(data);
    fclose(f);
}

static void corpus_folder(const char *path)
{
    struct dirent *entry;
    DIR *folder = opendir(path);
    if (!folder)
        return;
    while ((entry = readdir(folder))) {
        char name[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        corpus_file(name);
    }
    closedir(folder);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        if (folder) {
            closedir(folder);
            corpus_folder(argv[i]);
        } else {
            corpus_file(argv[i]);
        }
    }
    if (!runs) {
        /* No corpus yet: the empty input at least. */
        LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
        printf("[       OK ] the empty input\n");
    }
    return 0;
}
