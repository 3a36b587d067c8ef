/**
 * Debian's kernel for virtual machines, as it is in its package, on the interpreter.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  CACHE,
  entry,
  exists,
  fetchKernel,
  find,
  PartMissing,
  run,
} from "../_debian_kernel.ts";
import { cpio } from "./cpio.ts";

const MAIN = new URL("../../cli/main.ts", import.meta.url).pathname;
const JOB = new URL("job.sh", import.meta.url);
const INIT = new URL("init.sh", import.meta.url);

const MODULES = [
  "drivers/virtio/virtio_mmio.ko",
  "drivers/block/virtio_blk.ko",
];

interface Parts {
  kernel: string;
  /** The kernel's modules. */
  modules: string;
  busybox: string;
}

/** What the test is made of, or what is missing for it. */
async function prepare(): Promise<Parts | string> {
  if (Deno.env.has("SYNDBG_NESTED")) return "this is the nested guest";
  try {
    const busybox = await find("busybox");
    if ((await Deno.readTextFile(busybox)).includes("/lib64/ld-linux")) {
      throw new PartMissing("busybox is not busybox-static");
    }
    const folder = await fetchKernel();
    return {
      kernel: await entry(`${folder}/boot`, /^vmlinuz/),
      modules: `${await entry(`${folder}/lib/modules`, /./)}/kernel`,
      busybox,
    };
  } catch (error) {
    if (
      !(error instanceof PartMissing) || Deno.env.has("SYNDBG_REQUIRE_ALL")
    ) throw error;
    return error.message;
  }
}

/** A module's file; newer kernels have them compressed. */
async function readModule(path: string): Promise<Uint8Array> {
  if (await exists(path)) return await Deno.readFile(path);
  const { stdout } = await new Deno.Command("busybox", {
    args: ["xzcat", `${path}.xz`],
  }).output();
  return stdout;
}

/** The RAM disk. */
async function buildInitramfs(
  { busybox, modules }: Parts,
): Promise<Uint8Array> {
  return await cpio([
    { path: "bin" },
    { path: "bin/busybox", data: await Deno.readFile(busybox) },
    { path: "init", data: await Deno.readFile(INIT) },
    { path: "job.sh", data: await Deno.readFile(JOB) },
    { path: "modules" },
    ...await Promise.all(MODULES.map(async (module) => ({
      path: `modules/${module.split("/").at(-1)}`,
      data: await readModule(`${modules}/${module}`),
    }))),
  ]);
}

const parts = await prepare();
if (typeof parts === "string") console.log(`Skipped: Linux guest: ${parts}`);

Deno.test({
  name:
    "Debian's kernel boots in a Hyper-V partition, works, and powers off with 0",
  ignore: typeof parts === "string",
  async fn() {
    const { kernel } = parts as Parts;
    const folder = await Deno.makeTempDir({ dir: CACHE });
    const initramfs = `${folder}/initramfs`;
    const disk = `${folder}/disk`;
    try {
      await Deno.writeFile(initramfs, await buildInitramfs(parts as Parts));
      await Deno.writeTextFile(disk, "hello");
      await Deno.truncate(disk, 4096);
      const { code, stdout, stderr } = await new Deno.Command(
        Deno.execPath(),
        {
          args: [
            ...["run", "-A", "--quiet", MAIN, "run", "--backend", "interp"],
            ...["--linux", kernel, "--initrd", initramfs, "--disk", disk],
            ...["--timeout", "15m"],
            ...["--append", "console=ttyS0 loglevel=3 panic=-1"],
          ],
          stdin: "null",
        },
      ).output();
      const text = new TextDecoder().decode(stdout).replaceAll("\r", "");
      const all = `${text}\n${new TextDecoder().decode(stderr)}`;
      assertStringIncludes(
        all,
        "guest: Hypervisor detected: Microsoft Hyper-V\n",
      );
      assertStringIncludes(all, "guest: clocksource hyperv_clocksource_");
      assertStringIncludes(all, "guest: disk says hello\n");
      assertEquals(
        new TextDecoder().decode((await Deno.readFile(disk)).slice(512, 524)),
        "by the guest",
        all,
      );
      const done = /guest: job begins\n([^]*)guest: job ends\n/.exec(text)?.[1];
      assertEquals(done, await run("busybox", ["sh", JOB.pathname]), all);
      // A timer of Hyper-V's, with its interrupts counted.
      assert(
        /^guest: interrupts +\w+: +[1-9]\d*.*Hyper-V.*timer/im.test(all),
        all,
      );
      assertEquals(code, 0, all);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
