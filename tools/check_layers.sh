#!/bin/sh
# Includes point down only (tools/layers.txt). cli/ and include/ may use public headers only.
# usage: check_layers.sh [ROOT]
set -eu
cd "${1:-.}"
awk '
FNR == NR { if ($0 !~ /^#/ && NF == 2) row[$2] = $1; next }
/^[ \t]*#[ \t]*include[ \t]*"/ {
  split($0, q, "\""); inc = q[2]; n = split(FILENAME, p, "/"); split(inc, i, "/")
  if (p[1] == "src") {
    mod = p[2]
    if (!(mod in row)) { print FILENAME ": module " mod " is not in tools/layers.txt"; bad = 1; next }
    if (i[1] == "ashlar") {
      # public headers carry the row of the module they are named after
      h = i[2]; sub(/\.h$/, "", h); if (h in row && row[h] > row[mod]) { print FILENAME ": includes " inc " from a higher row"; bad = 1 }
    } else if (index(inc, "/")) {
      if (!(i[1] in row)) { print FILENAME ": unknown module in include " inc; bad = 1 }
      else if (i[1] != mod && row[i[1]] >= row[mod]) { print FILENAME ": row " row[mod] " includes " inc " of row " row[i[1]]; bad = 1 }
    }
  } else if (index(inc, "/") && i[1] != "ashlar") { print FILENAME ": only public headers (ashlar/...) here, not " inc; bad = 1 }
  seen++
}
END { if (!seen) { print "no includes seen"; bad = 1 } ; if (!bad) print "layers: " seen " includes, all point down"; exit bad }
' tools/layers.txt $(find src cli include -name '*.[ch]' -o -path '*src/*.inc')
