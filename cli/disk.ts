import type { BlockStorage } from "../core/devices/virtio/block.ts";
import { UsageError } from "./usage.ts";

/** A file as a disk. */
class FileDisk implements BlockStorage {
  readonly size: number;
  readonly readOnly: boolean;
  readonly #file: Deno.FsFile;

  constructor(file: Deno.FsFile, readOnly: boolean) {
    this.#file = file;
    this.readOnly = readOnly;
    this.size = file.seekSync(0, Deno.SeekMode.End);
  }

  read(offset: number, data: Uint8Array): void {
    this.#file.seekSync(offset, Deno.SeekMode.Start);
    for (let at = 0; at < data.length;) {
      const count = this.#file.readSync(data.subarray(at));
      if (count === null) throw new Error("Cannot read disk: file has shrunk");
      at += count;
    }
  }

  write(offset: number, data: Uint8Array): void {
    this.#file.seekSync(offset, Deno.SeekMode.Start);
    for (let at = 0; at < data.length;) {
      at += this.#file.writeSync(data.subarray(at));
    }
  }

  flush(): void {
    this.#file.syncSync();
  }
}

/**
 * Opens what `--disk FILE[,ro]` names.
 *
 * @throws {UsageError} If it cannot be opened.
 */
export function openDisk(option: string): BlockStorage {
  const readOnly = option.endsWith(",ro");
  const path = readOnly ? option.slice(0, -3) : option;
  try {
    if (!Deno.statSync(path).isFile) throw new Error("not a file");
    return new FileDisk(
      Deno.openSync(path, { read: true, write: !readOnly }),
      readOnly,
    );
  } catch (error) {
    throw new UsageError(
      `Cannot use --disk ${option}: ${(error as Error).message}`,
    );
  }
}
