import { type Case, visible } from "./cases.ts";

/** A case as a line that tells it whole. */
export function showCase(test: Case): string {
  const registers = visible(test, test.registers).map((value) =>
    value.toString(16)
  );
  return `${test.bits}-bit ${test.code.toHex()} at ${
    test.at.toString(16)
  }, flags ${test.flags.toString(16)}, registers ${registers.join(" ")}`;
}
