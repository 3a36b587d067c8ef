/**
 * Hyper-V's synthetic debugger in TypeScript: an x86 interpreter, the Hyper-V partition that its
 * guest sees, and transports for the guest's debug packets. Importing this module needs no
 * permission and starts nothing.
 *
 * @example A guest, and the debugger's end of its wire
 * ```ts
 * import {
 *   createGuestMachine,
 *   interpreter,
 *   loadImage,
 *   memoryPair,
 * } from "@syndbg/syndbg";
 *
 * const [transport, debuggerEnd] = memoryPair();
 * const { machine, memory } = createGuestMachine({
 *   backend: interpreter(),
 *   memorySize: 4 * 2 ** 20,
 *   syndbg: { transport },
 * });
 * // mov ecx, 0x400000f1 (CONTROL); mov eax, 5 << 16 | 1 (send 5 bytes); wrmsr; hlt
 * const code = [
 *   ...[0x66, 0xb9, 0xf1, 0, 0, 0x40, 0x66, 0xb8, 1, 0, 5, 0, 0x0f, 0x30, 0xf4],
 * ];
 * loadImage(memory, machine.vcpus[0]!, new Uint8Array(code));
 * memory.write(0, new TextEncoder().encode("hello"));
 * const outcome = await machine.run({ timeout: 1000 });
 * machine.close();
 *
 * const packet = new TextDecoder().decode(debuggerEnd.receive());
 * if (outcome.kind !== "halted" || packet !== "hello") throw new Error(packet);
 * ```
 *
 * @module
 */
export * from "./core/backend.ts";
export {
  type AcpiOptions,
  installAcpi,
  type VirtioWindow,
} from "./core/acpi/tables.ts";
export type { BoardState } from "./core/board.ts";
export {
  MmioBus,
  type MmioDevice,
  PortBus,
  type PortDevice,
} from "./core/bus.ts";
export type { DeviceState } from "./core/devices/state.ts";
export type { DebuggedMachine } from "./core/gdb/execution.ts";
export { type ByteStream, type GdbOptions, GdbStub } from "./core/gdb/stub.ts";
export { GuestMemory, type WriteListener } from "./core/guest_memory.ts";
export {
  type LoadedImage,
  loadImage,
  type LoadOptions,
} from "./core/loaders/load_image.ts";
export type { EntryMode } from "./core/loaders/entry_state.ts";
export {
  type LinuxOptions,
  type LinuxProtocol,
  type LoadedLinux,
  loadLinux,
} from "./core/loaders/linux.ts";
export type { MultibootModule } from "./core/loaders/multiboot.ts";
export {
  type ApicRegisters,
  type GuestInterface,
  Machine,
  type MachineDebugger,
  type MachineOptions,
  type MachineOutcome,
  type MachineState,
} from "./core/machine.ts";
export { interpreter } from "./core/x86/backend.ts";
export type { DebugPeer, DebugTransport } from "./hyperv/debug_transport.ts";
export {
  createGuestMachine,
  type GuestMachine,
  type GuestMachineOptions,
} from "./hyperv/guest_machine.ts";
export type {
  HypervHandler,
  KernelHyperv,
} from "./hyperv/defs/kernel_exits.ts";
export { hypervisorLeaves, type LeafOptions } from "./hyperv/leaves.ts";
export type { CrashReport } from "./hyperv/crash.ts";
export type { LocalApics } from "./hyperv/local_apics.ts";
export { Partition, type PartitionOptions } from "./hyperv/partition.ts";
export type { PartitionState } from "./hyperv/partition_state.ts";
export type { ReferenceClock } from "./hyperv/reference_time.ts";
export type { TimerState } from "./hyperv/synthetic_timers.ts";
export type { ProcessorState } from "./hyperv/virtual_processor.ts";
export * from "./hyperv/kd/mod.ts";
export type { Profile, SynDbgState } from "./hyperv/syndbg.ts";
export type { FrameState } from "./hyperv/frames/frame_layer.ts";
export {
  formatTrace,
  type TraceEvent,
  traceJson,
  type TraceSink,
} from "./hyperv/trace.ts";
export type {
  ListeningTransport,
  Sender,
} from "./hyperv/transports/listening.ts";
export {
  memoryPair,
  MemoryTransport,
} from "./hyperv/transports/memory_pair.ts";
export {
  type CapturedDatagram,
  readCapture,
} from "./hyperv/transports/capture.ts";
export { NullTransport } from "./hyperv/transports/null.ts";
export { type CaptureAddresses, PcapWriter } from "./hyperv/transports/pcap.ts";
export { DatagramQueue, type QueueLimits } from "./hyperv/transports/queue.ts";
export {
  type DatagramListener,
  TeeTransport,
} from "./hyperv/transports/tee.ts";
export {
  type DatagramEvents,
  type DatagramSocket,
  type UdpCounters,
  UdpTransport,
} from "./hyperv/transports/udp.ts";
export { Relay } from "./hyperv/transports/relay.ts";
export {
  type BoundSocket,
  ListeningUdpTransport,
  listenUdp,
} from "./hyperv/transports/udp_listen_node.ts";
export { connectUdp } from "./hyperv/transports/udp_node.ts";
