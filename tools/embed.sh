#!/bin/sh
# SPDX-License-Identifier: MIT
# embed.sh -- writes the template of `pomelo init` as a C file to stdout, so
# that the program needs no file beside it.
#
#   embed.sh PATH=FILE ...      PATH: what the file is called in a project
set -eu
echo '/* SPDX-License-Identifier: MIT */'
echo '/* template.c -- made by tools/embed.sh; what it holds is tools/template. */'
echo '#include "tools/pomelo_cli.h"'
i=0
for pair in "$@"; do
    echo "static const unsigned char file_${i}[] = {"
    od -An -v -tu1 "${pair#*=}" | sed 's/  */,/g; s/^,//; s/$/,/'
    echo '0};'
    i=$((i + 1))
done
echo 'const cli_file cli_template[] = {'
i=0
for pair in "$@"; do
    echo "    {\"${pair%%=*}\", file_$i, sizeof file_$i - 1},"
    i=$((i + 1))
done
echo '};'
echo 'const size_t cli_template_count ='
echo '    sizeof cli_template / sizeof *cli_template;'
