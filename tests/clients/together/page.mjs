// The chat page in one room, driven as client.mjs is; what it shows has no IDs, and is told once the
// last entry is there.
//
//   node page.mjs URL ROOM LAST
import { everything, live, print, run, stored, told, until, write } from '../page/browser.mjs'

const [room, last] = process.argv.slice(3)

await run(async (open) => {
  const page = await open('pat', { path: `/?room=${room}` })
  await live(page)
  print({ event: 'joined' })
  const all = (async () => {
    await stored(page, last)
    await until('nothing is pending', async () => (await page.locator('.message.pending').count()) === 0)
    for (const text of await everything(page)) print({ event: 'entry', text })
  })()
  let line
  while ((line = await told()) !== 'end') {
    await write(page, line)
    await stored(page, line)
    print({ event: 'stored', text: line })
  }
  await all
})
