const BYTES_PER_LINE = 16;

/** Bytes as lines of offset, hexadecimal and ASCII. */
export function hexDump(data: Uint8Array, indent = ""): string {
  const lines: string[] = [];
  for (let at = 0; at < data.length; at += BYTES_PER_LINE) {
    const line = [...data.subarray(at, at + BYTES_PER_LINE)];
    const hex = line.map((byte) => byte.toString(16).padStart(2, "0"));
    const ascii = line.map((byte) =>
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "."
    );
    lines.push(
      `${indent}${at.toString(16).padStart(4, "0")}  ${
        hex.join(" ").padEnd(BYTES_PER_LINE * 3 - 1)
      }  ${ascii.join("")}`,
    );
  }
  return lines.join("\n");
}
