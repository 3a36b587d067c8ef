/**
 * Assembles the guests. `deno task build:guests` writes the images; a test compares them.
 * Needs nasm.
 *
 * @module
 */
const here = new URL(".", import.meta.url).pathname;

/** A guest and the module that its image is committed in. */
export const guests: readonly {
  source: string;
  module: string;
  name: string;
}[] = [
  {
    source: "demo.asm",
    module: new URL("../../cli/guests/demo_guest.ts", import.meta.url)
      .pathname,
    name: "demoGuest",
  },
  ...["probe_long", "probe_legacy", "storm"].map((guest) => ({
    source: `${guest}.asm`,
    module: `${here}built/${guest}_guest.ts`,
    name: `${guest.replace(/_./, (text) => text[1]!.toUpperCase())}Guest`,
  })),
];

/** Assembles a source file to a flat binary. */
export async function assemble(source: string): Promise<Uint8Array> {
  const out = await Deno.makeTempFile({ suffix: ".bin" });
  try {
    const { success, stderr } = await new Deno.Command("nasm", {
      args: ["-f", "bin", "-I", `${here}lib/`, "-o", out, here + source],
    }).output();
    if (!success) {
      throw new Error(
        `Cannot assemble ${source}: ${new TextDecoder().decode(stderr)}`,
      );
    }
    return await Deno.readFile(out);
  } finally {
    await Deno.remove(out);
  }
}

/** The module for an image: base64 text that is decoded at first use. */
export function moduleText(
  name: string,
  source: string,
  image: Uint8Array,
): string {
  const text = image.toBase64();
  const lines = text.match(/.{1,72}/g) ?? [];
  return `// Built from tests/guests/${source} by \`deno task build:guests\`: do not edit.

const IMAGE = \`
${lines.join("\n")}
\`;

/** The image of the guest: a multiboot kernel. */
export function ${name}(): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromBase64(IMAGE.replaceAll("\\n", ""));
}
`;
}

if (import.meta.main) {
  for (const { source, module, name } of guests) {
    const image = await assemble(source);
    await Deno.writeTextFile(module, moduleText(name, source, image));
    console.log(`${source}: ${image.length} bytes`);
  }
}
