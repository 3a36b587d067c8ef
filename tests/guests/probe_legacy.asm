; Runs probes outside long mode, without paging: protected mode as kernel and as user, real mode, and
; virtual-8086 mode. All of it lies in the first 64 KiB, which real mode reaches.

%include "probe.inc"

org 0x8000
bits 32

STACK         equ 0x7000        ; of protected mode
REAL_STACK    equ 0x6800
V86_STACK     equ 0x6C00
IVT           equ 0

image:
align 4
header:
  dd 0x1BADB002, 0x00010003, -(0x1BADB002 + 0x00010003)
  dd header, image, image_end, image_end, start

start:
  cld
  mov esp, STACK
  lgdt [gdt_pointer]
  jmp 8:.segments
.segments:
  call data_segments
  mov ax, 0x28
  ltr ax
  lidt [idt_pointer]
  ; gates and real mode's vectors
  mov esi, stubs
  mov ebx, real_stubs
  xor ecx, ecx
.gate:
  mov [idt + ecx * 8], si
  mov dword [idt + ecx * 8 + 2], 0x8E000000 | 8
  mov word [idt + ecx * 8 + 6], 0
  mov [IVT + ecx * 4], ebx
  add esi, STUB_SIZE
  add ebx, REAL_STUB_SIZE
  inc ecx
  cmp ecx, 32
  jb .gate
  mov dword [current], PROBE_TABLE

next:
  dec dword [PROBES]
  js halt
  ; real mode does not reach the table: work on a copy
  mov esi, [current]
  mov edi, work
  mov ecx, PROBE_SIZE / 4
  rep movsd
  mov esi, work + P_CODE
  mov edi, slot
  mov ecx, CODE_SIZE / 4
  rep movsd
  mov eax, [work + P_MODE]
  jmp [modes + eax * 4]

halt:
  cli
  hlt
  jmp halt

modes:
  dd kernel, user, real, v86

; RET and JMP where they do: some hypervisors cannot run IRET without paging.
kernel:                         ; 0: protected mode, kernel
  call load_registers
  jmp slot
user:                           ; 1: protected mode, user
  push dword 0x23
  push dword STACK
  push dword 0x1B
  push dword slot
  mov ax, 0x23
  mov ds, ax
  mov es, ax
  call load_registers
  retf
v86:                            ; 3: virtual-8086 mode
  push dword 0                  ; GS FS DS ES
  push dword 0
  push dword 0
  push dword 0
  push dword 0                  ; SS
  push dword V86_STACK
  push dword 1 << 17 | 2
  push dword 0
  push dword slot
  call load_registers
  iret

load_registers:
  mov eax, [work + P_IN + R_AX]
  mov ecx, [work + P_IN + R_CX]
  mov edx, [work + P_IN + R_DX]
  mov ebx, [work + P_IN + R_BX]
  mov esi, [work + P_IN + R_SI]
  mov edi, [work + P_IN + R_DI]
  mov ebp, [work + P_IN + R_BP]
  ret

real:                           ; 2: real mode
  lidt [ivt_pointer]
  jmp 0x30:.sixteen
bits 16
.sixteen:
  mov ax, 0x38
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov eax, cr0
  and al, 0xFE
  mov cr0, eax
  jmp 0:.real
.real:
  xor ax, ax
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov sp, REAL_STACK
  mov eax, [work + P_IN + R_AX]
  mov ecx, [work + P_IN + R_CX]
  mov edx, [work + P_IN + R_DX]
  mov ebx, [work + P_IN + R_BX]
  mov esi, [work + P_IN + R_SI]
  mov edi, [work + P_IN + R_DI]
  mov ebp, [work + P_IN + R_BP]
  jmp slot

; Real mode's exceptions: IP, CS, FLAGS on the stack, no error code.
real_stubs:
%assign n 0
%rep 32
  push n
  jmp strict near real_exception
  %if n == 0
REAL_STUB_SIZE equ $ - real_stubs
  %endif
  %assign n n + 1
%endrep
real_exception:
  mov [work + P_OUT + R_AX], eax
  pop ax
  movzx eax, ax
  mov [work + P_VECTOR], eax
  pop ax
  sub ax, slot
  movzx eax, ax
  mov [work + P_OFFSET], eax
  mov dword [work + P_ERROR], 0
  mov eax, cr0
  or al, 1
  mov cr0, eax
  jmp dword 8:.protected
bits 32
.protected:
  mov eax, [work + P_OUT + R_AX]
  call store_registers
  call data_segments
  lidt [idt_pointer]
  jmp finish

; EAX excepted.
store_registers:
  mov [work + P_OUT + R_CX], ecx
  mov [work + P_OUT + R_DX], edx
  mov [work + P_OUT + R_BX], ebx
  mov [work + P_OUT + R_SI], esi
  mov [work + P_OUT + R_DI], edi
  mov [work + P_OUT + R_BP], ebp
  ret

data_segments:
  mov ax, 0x10
  mov ds, ax
  mov es, ax
  mov ss, ax
  ret

stubs:
%assign n 0
%rep 32
  %if !HAS_ERROR(n)
    push 0
  %else
    nop
    nop
  %endif
  push n
  jmp strict near exception
  %if n == 0
STUB_SIZE equ $ - stubs
  %endif
  %assign n n + 1
%endrep

; On the stack: vector, error code, EIP, ... After virtual-8086 mode DS is null.
exception:
  push eax
  mov ax, 0x10
  mov ds, ax
  mov es, ax
  pop dword [work + P_OUT + R_AX]
  call store_registers
  pop dword [work + P_VECTOR]
  pop dword [work + P_ERROR]
  pop eax
  sub eax, slot
  mov [work + P_OFFSET], eax

finish:
  mov esp, STACK
  cmp dword [work + P_OFFSET], CODE_SIZE
  jne .taken
  cmp dword [work + P_VECTOR], 6
  jne .taken
  mov dword [work + P_VECTOR], -1
.taken:
  mov dword [work + P_DONE], 1
  mov esi, work
  mov edi, [current]
  mov ecx, PROBE_SIZE / 4
  cld
  rep movsd
  mov [current], edi
  jmp next

; The code of a probe, and the instruction that ends it.
align 16
slot:
  times CODE_SIZE nop
slot_end:
  ud2

align 8
gdt:
  dq 0
  dq 0x00CF9B000000FFFF         ; 08 code
  dq 0x00CF93000000FFFF         ; 10 data
  dq 0x00CFFB000000FFFF         ; 18 code, user
  dq 0x00CFF3000000FFFF         ; 20 data, user
  dq 0x0000890000000067 | ((tss - image + 0x8000) << 16)  ; 28 TSS
  dq 0x00009B000000FFFF         ; 30 16-bit code
  dq 0x000093000000FFFF         ; 38 16-bit data
gdt_end:
gdt_pointer:
  dw gdt_end - gdt - 1
  dd gdt
idt_pointer:
  dw 32 * 8 - 1
  dd idt
ivt_pointer:
  dw 0x3FF
  dd IVT

align 8
tss:
  dd 0, STACK, 0x10
  times 22 dd 0
  dw 0, 104
idt:
  times 32 dq 0
current:
  dd 0
align 8
work:
  times PROBE_SIZE db 0

align 16
image_end:
