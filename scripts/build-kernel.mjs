/**
 * Compiles the SHA-512 kernel (AssemblyScript) into src/handlers/sha512/kernel.generated.ts.
 *
 *   node scripts/build-kernel.mjs           writes the file
 *   node scripts/build-kernel.mjs --check   writes nothing; ends with 1 when the file is not what the source compiles to
 */
import { readFile, writeFile } from 'node:fs/promises'
import asc from 'assemblyscript/asc'

const source = new URL('../src/handlers/sha512/kernel/sha512-chain.ts', import.meta.url)
const target = new URL('../src/handlers/sha512/kernel.generated.ts', import.meta.url)

// One page of memory that cannot grow; no runtime, no assertions: the kernel neither allocates nor can it fail.
const options = ['-O3', '--runtime', 'stub', '--noAssert', '--initialMemory', '1', '--maximumMemory', '1']

async function compile() {
  const files = new Map([['kernel.ts', await readFile(source, 'utf8')]])
  const { error, stderr } = await asc.main(['kernel.ts', ...options, '--outFile', 'kernel.wasm'], {
    readFile: name => files.get(name) ?? null,
    writeFile: (name, content) => void files.set(name, content),
    listFiles: () => [],
  })
  if (error) throw new Error(`The kernel does not compile:\n${stderr.toString()}`, { cause: error })
  return Buffer.from(files.get('kernel.wasm')).toString('base64')
}

const generated = `/** Generated from kernel/sha512-chain.ts by scripts/build-kernel.mjs; change that, then \`npm run build:kernel\`. */
export const kernelBase64 =
  '${await compile()}'
`

if (process.argv.includes('--check')) {
  if ((await readFile(target, 'utf8').catch(() => '')) !== generated) {
    process.stderr.write('src/handlers/sha512/kernel.generated.ts is out of date: run "npm run build:kernel".\n')
    process.exitCode = 1
  }
} else {
  await writeFile(target, generated)
}
