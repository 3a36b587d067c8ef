import { assertEquals } from "@std/assert";
import { createCipheriv, createHash, createHmac } from "node:crypto";

const here = new URL(".", import.meta.url).pathname;

/** Whether gcc is there. Where all parts are required its absence is a failure. */
function hasCompiler(): boolean {
  try {
    new Deno.Command("gcc", { args: ["--version"], stdout: "null" })
      .outputSync();
    return true;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    if (Deno.env.has("SYNDBG_REQUIRE_ALL")) return true;
    console.log("Skipped: the stub's cryptography needs gcc");
    return false;
  }
}

Deno.test({
  name: "the stub's SHA-256, HMAC and AES give what OpenSSL's give",
  ignore: !hasCompiler(),
  async fn() {
    const program = await Deno.makeTempFile();
    try {
      const stub = `${here}../../../hyperv/kd/stub`;
      const { success } = await new Deno.Command("gcc", {
        args: [
          ...["-O2", "-I", stub, "-o", program],
          ...[`${here}stub_crypto.c`, `${stub}/crypto.c`],
        ],
      }).output();
      assertEquals(success, true);
      const { stdout } = await new Deno.Command(program).output();
      const lines = new TextDecoder().decode(stdout).trimEnd().split("\n");
      const data = Uint8Array.from({ length: 256 }, (_, n) => 7 * n + 3);
      const key = Uint8Array.from({ length: 32 }, (_, n) => 5 * n + 1);
      const iv = Uint8Array.from({ length: 16 }, (_, n) => 3 * n);
      const cipher = createCipheriv("aes-256-cbc", key, iv)
        .setAutoPadding(false);
      assertEquals(lines, [
        ...Array.from(
          { length: 201 },
          (_, n) =>
            createHash("sha256").update(data.subarray(0, n)).digest("hex"),
        ),
        createHmac("sha256", key).update(data.subarray(0, 150)).digest("hex"),
        cipher.update(data, undefined, "hex") + cipher.final("hex"),
        data.toHex(),
      ]);
    } finally {
      await Deno.remove(program);
    }
  },
});
