package tokenstore

import (
	"errors"
	"os"
	"path/filepath"
)

// replace is that of the other systems: renameio leaves Windows out, as a file there is
// not always replaced at once. `login` and `dev` are what runs there.
func replace(path, text string) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"*")
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name()) // the first error is the one to return
	}
	return err
}
