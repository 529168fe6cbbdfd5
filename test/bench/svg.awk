# SPDX-License-Identifier: MIT
# svg.awk -- the ratios of run.sh as bars: NAME <tab> RATIO <tab> LIMIT a line.
# A bar is as long as the ratio is of its limit; the line on the right is the
# limit itself.
BEGIN { FS = "\t" }
NF == 3 { name[++n] = $1; ratio[n] = $2; limit[n] = $3 }
END {
    step = 26; left = 330; width = 420
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"13\">\n",
        left + width + 190, n * step + 50
    printf "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
    printf "<text x=\"%d\" y=\"20\">part of the limit that is used</text>\n", left
    for (i = 1; i <= n; i++) {
        y = 34 + (i - 1) * step
        part = limit[i] > 0 ? ratio[i] / limit[i] : 0
        shown = part > 1.25 ? 1.25 : part
        gsub(/&/, "\\&amp;", name[i]); gsub(/</, "\\&lt;", name[i])
        printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left - 10, y + 14, name[i]
        printf "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"18\" fill=\"%s\"/>\n",
            left, y, shown * width / 1.25, part <= 1 ? "#3a7d44" : "#b3261e"
        printf "<text x=\"%.1f\" y=\"%d\">%.2f x of %s x</text>\n",
            left + width + 10, y + 14, ratio[i], limit[i]
    }
    x = left + width / 1.25
    printf "<line x1=\"%.1f\" y1=\"28\" x2=\"%.1f\" y2=\"%d\" stroke=\"#000\"/>\n</svg>\n", x, x, n * step + 40
}
