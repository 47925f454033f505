-- Run inside Neovim 0.11: attaches the server, types at the end of a buffer, writes what came.
-- vim.g.server: the command; vim.g.answer: the file to write.
local lines = { "import os", "", "", "def list_files(path):", "    return os." }
vim.api.nvim_buf_set_lines(0, 0, -1, true, lines)
vim.api.nvim_buf_set_name(0, vim.g.answer .. ".py")
vim.bo.filetype = "python"
local id = vim.lsp.start({
  name = "tinystarcoder",
  cmd = vim.g.server,
  init_options = { debounce = 0, max_tokens = 12 },
})
local client = vim.lsp.get_client_by_id(id)
assert(vim.wait(60000, function() return client.initialized end), "not initialized")
local position = { line = #lines - 1, character = #lines[#lines] }
local document = { uri = vim.uri_from_bufnr(0) }

-- Grey text: Neovim has it from 0.12; here the request is sent by hand.
local inline = client:request_sync("textDocument/inlineCompletion", {
  textDocument = document, position = position, context = { triggerKind = 1 },
}, 60000, 0)

-- Plain completion, natively: once its menu shows, its words are written down.
vim.o.completeopt = "menuone,noinsert" -- A menu for a single item, too.
vim.lsp.completion.enable(true, id, 0, { autotrigger = false })
vim.api.nvim_win_set_cursor(0, { #lines, #lines[#lines] })
vim.api.nvim_create_autocmd("CompleteChanged", {
  callback = function()
    local words = vim.tbl_map(function(item) return item.word end, vim.fn.complete_info().items)
    local answer = { inline = inline.result.items[1].insertText, words = words }
    vim.fn.writefile({ vim.json.encode(answer) }, vim.g.answer)
    vim.schedule(function() vim.cmd("qall!") end)
  end,
})
vim.api.nvim_create_autocmd("InsertEnter", {
  callback = function() vim.schedule(vim.lsp.completion.get) end,
})
vim.cmd.startinsert({ bang = true })
